"""The distribution for Perl: its own tests, and what CPAN expects of its files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.perl import DISTRIBUTION, environment, require_perl
from support.processes import BIN, DEADLINE


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    """A copy of it, for files that are made in it."""
    require_perl("Minion")
    return Path(shutil.copytree(DISTRIBUTION, tmp_path / "perl"))


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE,
        env=environment(MINION_BIN=str(BIN / "minion"), HARNESS_OPTIONS="j4"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_is_made_and_its_tests_pass(distribution: Path) -> None:
    assert "Warning" not in _run(distribution, "perl", "Makefile.PL")
    output = _run(distribution, "make", "test")
    assert "Result: PASS" in output
    assert "skipped" not in output.replace("skipped: Minion 12 has schedules", "")


def test_its_files_are_those_of_the_manifest(distribution: Path) -> None:
    check = "use ExtUtils::Manifest qw(fullcheck); print 0 + map { @$_ } fullcheck"
    assert _run(distribution, "perl", "-e", check).strip().endswith("0")


def test_its_documentation_is_well_formed(distribution: Path) -> None:
    _run(
        distribution,
        "perl",
        "-MPod::Checker",
        "-e",
        "exit podchecker(shift)",
        "lib/Minion/Backend/Rest.pm",
    )
