"""`minion library`: the directory of archives that the bundled tasks keep."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minion_server.cli.output import print_lines, print_table, print_warning, printable, shorten
from minion_server.cli.parsers import Commands, add_verbs
from minion_server.domain.errors import Invalid
from minion_server.library import arguments as library_arguments
from minion_server.library.archive import is_archive_name
from minion_server.library.backup import dump_backup, restore_backup
from minion_server.library.errors import LibraryError, SettingError
from minion_server.library.index import Index
from minion_server.library.metadata import join_tags
from minion_server.library.rebuild import Step, rebuild, verify
from minion_server.library.settings import Settings
from minion_server.library.thumbnails import write
from minion_server.library.upload import take
from minion_server.settings.options import pick
from minion_server.settings.sources import add_arguments, resolve
from minion_server.tasks import library_directory

LIBRARY_OPTIONS = pick("data_dir", "library_dir")
EXIT_FAILED = 1


def add_parser(commands: Commands[Any]) -> None:
    """Add the command and its verbs."""
    text = "make, fill and check the library of the bundled tasks, without a server"
    add = add_verbs(commands, "library", run, text, lambda one: add_arguments(one, LIBRARY_OPTIONS))

    add("init", make)
    adding = add("add", add_files)
    adding.add_argument(
        "files", nargs="+", metavar="FILE", help="an archive, or a directory of some"
    )
    adding.add_argument("--category", metavar="ID", help="add them to this category")
    listing = add("list", list_archives)
    listing.add_argument("--tag", help="only those with this tag")
    showing = add("show", show_archive)
    showing.add_argument("id", help="its id, 40 hex digits")
    for one in (listing, showing):
        one.add_argument("--json", action="store_true", help="print JSON, for scripts")
    backing = add("backup", back_up)
    backing.add_argument("file", help="the file, in LANraragi's format")
    restoring = add("restore", restore)
    restoring.add_argument("file", help="a file of `backup`, or LANraragi's")
    add("verify", check)
    add("rebuild", build)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb.

    Raises:
        Invalid: A setting is invalid.
    """
    values = resolve(LIBRARY_OPTIONS, arguments)
    directory = library_directory(values["data_dir"], values["library_dir"])
    try:
        settings = Settings.from_environment(os.environ | {"MINION_LIBRARY_DIR": str(directory)})
    except SettingError as error:
        name, _, text = str(error).partition(": ")
        raise Invalid(name, text) from None
    try:
        status: int = arguments.verb(arguments, settings)
    except LibraryError as error:
        print_warning(str(error))
        return EXIT_FAILED
    return status


def make(arguments: argparse.Namespace, settings: Settings) -> int:
    """Make a library of a directory, with the archives that it has."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    status = build(arguments, settings)
    print(f"{settings.directory}: {len(Index(settings.directory).entries())} archives")
    return status


def add_files(arguments: argparse.Namespace, settings: Settings) -> int:
    """Copy archives into the library; the files stay."""
    files = [file for name in arguments.files for file in _files(Path(name))]
    failed = 0
    for file in _bar(files, len(files), "adding"):
        result = take(str(file), arguments.category, settings)
        if not result["success"]:
            failed += 1
            _print(f"{file}: {result['message']}")
    print(f"{len(files) - failed} of {len(files)} files are added")
    return EXIT_FAILED if failed else 0


def list_archives(arguments: argparse.Namespace, settings: Settings) -> int:
    """List the archives, the newest first."""
    entries = [
        entry
        for entry in Index(settings.directory).entries()
        if arguments.tag is None or arguments.tag in entry.tags
    ]
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries]))
        return 0
    rows = [
        (
            entry.id,
            entry.pages,
            f"{entry.size:,}",
            shorten(entry.title),
            shorten(join_tags(entry.tags)),
        )
        for entry in entries
    ]
    print_table(("ID", "PAGES", "BYTES", "TITLE", "TAGS"), rows)
    return 0


def show_archive(arguments: argparse.Namespace, settings: Settings) -> int:
    """Show an archive."""
    entry = Index(settings.directory).entry(library_arguments.archive_id(arguments.id))
    record = asdict(entry)
    if arguments.json:
        print(json.dumps(record))
        return 0
    added = datetime.fromtimestamp(entry.added).astimezone()
    shown = record | {
        "size": f"{entry.size:,} bytes",
        "added": added.isoformat(sep=" ", timespec="seconds"),
        "tags": join_tags(entry.tags),
        "path": settings.directory / entry.file,
    }
    print_lines([(name, value) for name, value in shown.items() if value not in {None, ""}])
    return 0


def back_up(arguments: argparse.Namespace, settings: Settings) -> int:
    """Write the metadata of archives, categories and tanks into a file."""
    write(Path(arguments.file).absolute(), dump_backup(settings, _ignore))
    return 0


def restore(arguments: argparse.Namespace, settings: Settings) -> int:
    """Restore the metadata of a backup."""
    restore_backup(settings, Path(arguments.file).read_text("utf-8", "replace"), _ignore)
    return 0


def check(_arguments: argparse.Namespace, settings: Settings) -> int:
    """Read all archives, and print what is wrong with them."""
    return _report(verify(settings), "verifying")


def build(_arguments: argparse.Namespace, settings: Settings) -> int:
    """Index the archives of the directory, and forget those that are gone."""
    return _report(rebuild(settings), "indexing")


def _report(steps: Iterator[Step], doing: str) -> int:
    """Draw the progress of steps, print their problems, and return the exit status."""
    problems = 0
    with _bar(None, None, doing) as bar:
        for step in steps:
            bar.total = step.total
            bar.update()
            if step.problem is not None:
                problems += 1
                _print(f"{step.file}: {step.problem}")
    return EXIT_FAILED if problems else 0


def _bar(items: Iterable[Any] | None, total: int | None, doing: str) -> tqdm[Any]:
    """Return a progress bar on the terminal; none is drawn into a file or pipe."""
    return tqdm(items, total=total, desc=doing, unit=" files", disable=None, leave=False)


def _print(text: str) -> None:
    tqdm.write(printable(text), file=sys.stderr)


def _ignore(_notes: object) -> None:
    pass


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path.absolute()
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and is_archive_name(file.name):
            yield file.absolute()
