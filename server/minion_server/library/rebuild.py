"""Compares the library's index with its directory: rebuilds the one, verifies the other."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from minion_server.library.archive import (
    compute_id,
    is_archive_name,
    open_regular,
    read_whole,
)
from minion_server.library.errors import LibraryError, RefusedError, accessing
from minion_server.library.index import Entry, Index, now
from minion_server.library.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One file of the directory, or one archive of the index, that was looked at.

    Attributes:
        done: Files done, this one included.
        total: Files to do.
        file: Its path in the library's directory.
        problem: What is wrong with it, or None.
    """

    done: int
    total: int
    file: str
    problem: str | None


def rebuild(settings: Settings) -> Iterator[Step]:
    """Index the archives that are in the directory, at any depth, and forget those that are not.

    What the index knows of an archive (title, tags, hash) stays, also if its file was moved. A
    damaged index is put aside as `index.sqlite3.damaged` and made anew.

    Raises:
        LibraryError: The directory cannot be read, or the index not written.
    """
    index = Index(settings.directory)
    _put_aside_if_damaged(index)
    rows = index.rows()
    known = {entry.id: entry for entry in rows}
    by_file = {entry.file: entry for entry in rows}
    with accessing("the library cannot be read"):
        files = sorted(_archives(settings.directory))
    read: dict[str, str] = {}
    found: dict[str, str] = {}
    changed: list[Entry] = []
    for done, file in enumerate(files, start=1):
        problem = None
        try:
            entry = _read(settings, file, known)
            read[file] = entry.id
            if entry.id in found:
                problem = f"It is the same archive as {found[entry.id]}."
            else:
                found[entry.id] = file
                if entry.id not in known and file not in by_file:
                    index.record([entry])
                elif entry != known.get(entry.id):
                    changed.append(entry)
        except RefusedError as error:
            problem = str(error)
        yield Step(done=done, total=len(files), file=file, problem=problem)
    # At once: archives may have each other's names.
    index.place(changed)
    index.forget_missing(read)


def verify(settings: Settings) -> Iterator[Step]:
    """Read all archives of the index whole.

    Raises:
        LibraryError: The index cannot be read.
    """
    entries = Index(settings.directory).entries()
    for done, entry in enumerate(entries, start=1):
        path, problem = settings.directory / entry.file, None
        try:
            with open_regular(path) as file:
                if compute_id(file) != entry.id:
                    problem = "It is not the archive that was added."
            if problem is None:
                read_whole(path, settings.limits)
        except RefusedError as error:
            problem = str(error)
        yield Step(done=done, total=len(entries), file=entry.file, problem=problem)


def _put_aside_if_damaged(index: Index) -> None:
    path = index.database.path
    try:
        with index.database.reading() as database:
            (result,) = database.execute("PRAGMA quick_check(1)").fetchone()
            damaged = result != "ok"
    except LibraryError as error:
        damaged = isinstance(error.__cause__, sqlite3.DatabaseError) and not isinstance(
            error.__cause__, sqlite3.OperationalError
        )
        if not damaged:
            raise
    if damaged:
        with accessing("the library cannot be written"):
            path.replace(path.with_name(f"{path.name}.damaged"))


def _archives(directory: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(directory, onerror=fail):
        # The library's own folder, and those of file managers and trash cans.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.relpath(Path(folder, name), directory)
            if is_archive_name(name) and _is_utf8(path):
                yield path


def _is_utf8(path: str) -> bool:
    # Another name cannot be written in JSON, thus not indexed.
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(settings: Settings, file: str, known: Mapping[str, Entry]) -> Entry:
    path = settings.directory / file
    with open_regular(path) as source:
        archive_id, size = compute_id(source), os.fstat(source.fileno()).st_size
    entry = known.get(archive_id)
    if entry is not None and entry.size == size:
        return replace(entry, file=file)
    pages = read_whole(path, settings.limits)
    if entry is not None:
        return replace(entry, file=file, size=size, pages=pages)
    return Entry(id=archive_id, file=file, size=size, pages=pages, title=path.stem, added=now())
