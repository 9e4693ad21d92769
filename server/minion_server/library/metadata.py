"""Metadata of archives: titles, summaries, tags, categories and tanks."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from minion_server.library.database import Database
from minion_server.library.errors import NotInLibraryError
from minion_server.library.index import set_tags

_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

SOURCE = "source:"
"""Namespace of tags that hold the address an archive was downloaded from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A named set of archives, or a stored search if `search` is not empty."""

    id: str
    name: str
    search: str = ""
    archives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tank:
    """An ordered list of archives, such as the volumes of a series; `tags` is comma-separated."""

    id: str
    name: str
    summary: str = ""
    tags: str = ""
    archives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Changes of an archive's metadata; None, or no tags, changes nothing."""

    tags: tuple[str, ...] = ()
    title: str | None = None
    summary: str | None = None

    def plain(self) -> Metadata:
        """Return it without characters that cannot be stored or shown, and with single tags.

        Raises:
            TypeError: A value is not a text.
        """
        return Metadata(
            tags=split_tags(",".join(self.tags)),
            title=None if self.title is None else " ".join(_plain(self.title).split()),
            summary=None if self.summary is None else _plain(self.summary).strip(),
        )


def split_tags(text: str) -> tuple[str, ...]:
    """Return the tags of a comma-separated text, without repetition."""
    tags = (" ".join(tag.split()) for tag in _plain(text).split(","))
    return tuple(dict.fromkeys(tag for tag in tags if tag))


def join_tags(tags: Iterable[str]) -> str:
    """Return tags as one comma-separated text."""
    return ", ".join(tags)


class MetadataStore:
    """The metadata in the index of a library.

    All methods raise LibraryError if the index cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def update(self, archive_id: str, metadata: Metadata) -> tuple[str, ...]:
        """Add tags to an archive, and set its title and summary if given.

        Returns:
            The new tags; one that differs from a present one in case alone is not added.
        """
        with self._database.writing() as database:
            rows = database.execute("SELECT tag FROM tags WHERE id = ?", (archive_id,))
            known = {tag.lower() for (tag,) in rows}
            new = {tag.lower(): tag for tag in metadata.tags if tag.lower() not in known}
            if not database.execute(
                "UPDATE archives SET title = coalesce(?, title), summary = coalesce(?, summary)"
                " WHERE id = ?",
                (metadata.title, metadata.summary, archive_id),
            ).rowcount:
                return ()
            database.executemany(
                "INSERT OR IGNORE INTO tags (id, tag) VALUES (?, ?)",
                ((archive_id, tag) for tag in new.values()),
            )
        return tuple(new.values())

    def replace(self, archive_id: str, *, title: str, summary: str, tags: Iterable[str]) -> bool:
        """Set all metadata of an archive; return whether the index has it."""
        with self._database.writing() as database:
            changed = database.execute(
                "UPDATE archives SET title = ?, summary = ? WHERE id = ?",
                (title, summary, archive_id),
            ).rowcount
            if changed:
                set_tags(database, archive_id, tags)
        return bool(changed)

    def find_by_tag(self, tag: str) -> list[str]:
        """Return the ids of the archives that have a tag."""
        with self._database.reading() as database:
            rows = database.execute("SELECT id FROM tags WHERE tag = ? ORDER BY id", (tag,))
            return [archive_id for (archive_id,) in rows]

    def add_to_category(self, category_id: str, archive_id: str) -> str:
        """Add an archive to a category, which is made if there is none; return its name."""
        with self._database.writing() as database:
            database.execute(
                "INSERT OR IGNORE INTO categories (id, name) VALUES (?, ?)",
                (category_id, category_id),
            )
            database.execute(
                "INSERT OR IGNORE INTO members (collection, position, id) SELECT ?1,"
                " coalesce(max(position) + 1, 0), ?2 FROM members WHERE collection = ?1",
                (category_id, archive_id),
            )
            (name,) = database.execute(
                "SELECT name FROM categories WHERE id = ?", (category_id,)
            ).fetchone()
        return str(name)

    def set_category(self, category: Category) -> None:
        """Make a category, or replace the one with its id."""
        with self._database.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO categories (id, name, search) VALUES (?, ?, ?)",
                (category.id, category.name, category.search),
            )
            _set_members(database, category.id, category.archives)

    def set_tank(self, tank: Tank) -> None:
        """Make a tank, or replace the one with its id."""
        with self._database.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO tanks (id, name, summary, tags) VALUES (?, ?, ?, ?)",
                (tank.id, tank.name, tank.summary, tank.tags),
            )
            _set_members(database, tank.id, tank.archives)

    def categories(self) -> list[Category]:
        """Return all categories, by id."""
        with self._database.reading() as database:
            rows = database.execute("SELECT id, name, search FROM categories ORDER BY id")
            return [
                Category(id=row[0], name=row[1], search=row[2], archives=_members(database, row[0]))
                for row in rows.fetchall()
            ]

    def tanks(self) -> list[Tank]:
        """Return all tanks, by id."""
        with self._database.reading() as database:
            return list(_tanks(database, "", ()))

    def tank(self, tank_id: str) -> Tank:
        """Return a tank, or raise NotInLibraryError."""
        with self._database.reading() as database:
            for tank in _tanks(database, "WHERE id = ?", (tank_id,)):
                return tank
        raise NotInLibraryError(f"the tank {tank_id} is not in the library")


def _plain(text: str) -> str:
    """Replace lone surrogates, and control characters other than line ends."""
    return _UNPRINTABLE.sub(" ", text)


def _tanks(database: sqlite3.Connection, condition: str, values: Sequence[str]) -> Iterator[Tank]:
    rows = database.execute(
        f"SELECT id, name, summary, tags FROM tanks {condition} ORDER BY id",  # noqa: S608 - no input
        values,
    ).fetchall()
    for tank_id, name, summary, tags in rows:
        yield Tank(
            id=tank_id, name=name, summary=summary, tags=tags, archives=_members(database, tank_id)
        )


def _set_members(database: sqlite3.Connection, collection: str, archives: Iterable[str]) -> None:
    database.execute("DELETE FROM members WHERE collection = ?", (collection,))
    database.executemany(
        "INSERT OR IGNORE INTO members (collection, position, id) VALUES (?, ?, ?)",
        ((collection, position, archive_id) for position, archive_id in enumerate(archives)),
    )


def _members(database: sqlite3.Connection, collection: str) -> tuple[str, ...]:
    rows = database.execute(
        "SELECT id FROM members WHERE collection = ? ORDER BY position", (collection,)
    )
    return tuple(archive_id for (archive_id,) in rows)
