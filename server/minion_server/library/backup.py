"""Writes the library's metadata as LANraragi's backup file, and reads it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from minion_server.library import arguments
from minion_server.library.errors import LibraryError
from minion_server.library.index import Index
from minion_server.library.metadata import Category, MetadataStore, Tank, join_tags, split_tags
from minion_server.library.settings import HIDDEN, Settings
from minion_server.library.thumbnails import write

_NOTED_ARCHIVES: Final = 100

Progress = Callable[[Mapping[str, Any]], None]


class _Counts:
    """The progress of a backup, in the notes that LANraragi's page draws."""

    def __init__(self, progress: Progress, totals: Mapping[str, int]) -> None:
        self._progress = progress
        self._notes: dict[str, Any] = {}
        for name, total in totals.items():
            self._notes |= {f"{name}_processed": 0, f"total_{name}": total}

    def each(self, name: str, items: Sequence[Any], status: str, every: int = 1) -> Iterator[Any]:
        for done, item in enumerate(items, start=1):
            yield item
            self._notes |= {f"{name}_processed": done, "status": status}
            if done % every == 0 or done == len(items):
                self._progress(self._notes)

    def finish(self, status: str) -> None:
        self._progress(self._notes | {"status": status})


def write_backup(settings: Settings, job_id: int, progress: Progress) -> Path:
    """Write `.minion/backups/backup_<job_id>.json` and return its path.

    Raises:
        LibraryError: The index cannot be read or the file written.
    """
    path = settings.directory / HIDDEN / "backups" / f"backup_{job_id}.json"
    write(path, dump_backup(settings, progress))
    return path


def dump_backup(settings: Settings, progress: Progress) -> bytes:
    """Return a backup as JSON.

    Raises:
        LibraryError: The index cannot be read.
    """
    index = Index(settings.directory)
    metadata = MetadataStore(index.database)
    categories, tanks, entries = metadata.categories(), metadata.tanks(), index.entries()
    counts = _Counts(
        progress,
        {"categories": len(categories), "tankoubons": len(tanks), "archives": len(entries)},
    )
    backup: dict[str, list[Any]] = {
        "categories": [
            {"catid": one.id, "name": one.name, "search": one.search, "archives": one.archives}
            for one in counts.each("categories", categories, "Processing categories...")
        ],
        "tankoubons": [
            {
                "tankid": one.id,
                "name": one.name,
                "summary": one.summary,
                "tags": one.tags,
                "archives": one.archives,
            }
            for one in counts.each("tankoubons", tanks, "Processing tankoubons...")
        ],
        "archives": [
            {
                "arcid": one.id,
                "title": one.title,
                "tags": join_tags(one.tags),
                "summary": one.summary,
                "thumbhash": one.thumbhash or "",
                "filename": one.file,
            }
            for one in counts.each(
                "archives", entries, "Processing archives...", every=_NOTED_ARCHIVES
            )
        ],
    }
    counts.finish("Finalizing backup...")
    return orjson.dumps(backup)


def restore_backup(settings: Settings, text: object, progress: Progress) -> None:
    """Restore categories, tanks, and the metadata of the archives that the library has.

    The whole backup is checked first.

    Raises:
        LibraryError: It is not a backup, or the index cannot be written.
    """
    backup = _parse(text)
    metadata = MetadataStore(Index(settings.directory).database)
    counts = _Counts(progress, {name: len(items) for name, items in backup.items()})
    for item in counts.each("categories", backup["categories"], "Restoring categories..."):
        metadata.set_category(item)
    for item in counts.each("tankoubons", backup["tankoubons"], "Restoring tankoubons..."):
        metadata.set_tank(item)
    for archive_id, values in counts.each(
        "archives", backup["archives"], "Restoring archives...", every=_NOTED_ARCHIVES
    ):
        metadata.replace(archive_id, **values)
    counts.finish("Finalizing restore...")


def _parse(text: object) -> dict[str, list[Any]]:
    if not isinstance(text, str):
        raise LibraryError(f"json: expected a backup as text, got {arguments.shown(text)}")
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise LibraryError(f"json: expected a backup: {error}") from error
    if not isinstance(data, dict):
        raise LibraryError("json: expected a backup, which is an object")
    return {
        "categories": [
            Category(
                id=_text(item, "catid"),
                name=_text(item, "name"),
                search=_text(item, "search", ""),
                archives=_ids(item),
            )
            for item in _items(data, "categories")
        ],
        "tankoubons": [
            Tank(
                id=arguments.tank_id(_text(item, "tankid")),
                name=_text(item, "name"),
                summary=_text(item, "summary", ""),
                tags=_text(item, "tags", ""),
                archives=_ids(item),
            )
            for item in _items(data, "tankoubons")
        ],
        "archives": [
            (
                arguments.archive_id(_text(item, "arcid")),
                {
                    "title": _text(item, "title"),
                    "summary": _text(item, "summary", ""),
                    "tags": split_tags(_text(item, "tags", "")),
                },
            )
            for item in _items(data, "archives")
        ],
    }


def _items(data: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
    items = data.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise LibraryError(f"json: {name}: expected a list of objects")
    return [(f"{name}[{number}]", item) for number, item in enumerate(items)]


def _text(place: tuple[str, Mapping[str, Any]], key: str, default: str | None = None) -> str:
    name, item = place
    value = item.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise LibraryError(f"json: {name}.{key}: expected a text, got {arguments.shown(value)}")
    return value


def _ids(place: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    name, item = place
    ids = item.get("archives") or []
    if not isinstance(ids, list):
        raise LibraryError(f"json: {name}.archives: expected a list of ids")
    return tuple(arguments.archive_id(value) for value in ids)
