"""Imports the modules that define tasks, and sets the archive directory of the bundled ones."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from minion_server.domain.errors import Invalid

LIBRARY_MODULE: Final = "minion_server.library"


def library_directory(data_dir: Path, library_dir: Path | None) -> Path:
    """Return where the bundled tasks keep archives, given the settings of these names."""
    return (library_dir or data_dir / "library").absolute()


def load_tasks(
    *, data_dir: Path, tasks: Sequence[str], no_library: bool, library_dir: Path | None
) -> list[str]:
    """Import the modules that define tasks, the bundled ones first, and return their names.

    Modules are searched in `sys.path` and the working directory. The arguments are the settings
    `TASK_OPTIONS`.

    Raises:
        Invalid: A module cannot be imported.
    """
    # Read by the bundled tasks, in this process and in those it starts.
    os.environ["MINION_LIBRARY_DIR"] = str(library_directory(data_dir, library_dir))
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        sys.path.append(working_directory)
    modules = [*tasks] if no_library else [LIBRARY_MODULE, *tasks]
    for module in modules:
        try:
            importlib.import_module(module)
        except KeyboardInterrupt:
            raise
        # A module may even raise SystemExit, which would end this program without a message.
        except BaseException as error:
            raise Invalid("--tasks", f"cannot import {module}: {_describe(error)}") from error
    return modules


def _describe(error: BaseException) -> str:
    """Return the type and text of an error in one line, and its line in the imported module."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    if not frames:
        return text
    # The last line within the module itself, not in what it called.
    line = next(f.lineno for f in reversed(frames) if f.filename == frames[0].filename)
    return f"{text} ({frames[0].filename}, line {line})"
