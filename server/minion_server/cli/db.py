"""`minion db`: upgrade, copy and move a database."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from minion_server.cli.moving import move_queue
from minion_server.cli.output import print_lines
from minion_server.cli.parsers import Commands, add_verbs
from minion_server.settings.options import pick
from minion_server.settings.sources import add_arguments, resolve
from minion_server.settings.values import parse_path, parse_seconds
from minion_server.stores import default_database, open_transfer, sqlite_url

DB_OPTIONS = pick("data_dir", "database")
EXIT_INTERRUPTED = 130
"""The status after Ctrl-C, for each of the signals."""


def add_parser(commands: Commands[Any]) -> None:
    """Add the command and its verbs."""
    text = "look after the database: upgrade it, copy it, move it"
    add = add_verbs(commands, "db", run, text, lambda one: add_arguments(one, DB_OPTIONS))

    add("status", show_status).add("--json", "print JSON, for scripts", action="store_true")
    text = "bring Perl Minion's own schema to this version too: an older Perl Minion cannot use the"
    text += " database any more"
    add("upgrade", upgrade).add("--minion-schema", text, type=int, metavar="VERSION")
    add("backup", back_up).add("file", "the file: an embedded database of its own")
    add("restore", restore_backup).add("file", "the file")
    copy = add("copy", move)
    copy.add("target", "URL of the database to move to")
    text = "how long running jobs are waited for (default: 60); those that remain are tried again"
    text += " there, where attempts are left"
    copy.add("--wait", text, parse_seconds, default=60.0, metavar="SECONDS")
    add("reopen", reopen)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    values = resolve(DB_OPTIONS, arguments)
    database = values["database"] or default_database(values["data_dir"])
    status: int = asyncio.run(arguments.verb(arguments, database))
    return status


async def show_status(arguments: argparse.Namespace, database: str) -> int:
    """Show the versions, the size and what it holds."""
    transfer = open_transfer(database)
    status = await transfer.status()
    if arguments.json:
        print(json.dumps(asdict(status)))
        return 0
    rows: list[tuple[str, object]] = [("database", transfer.place), ("kind", status.kind)]
    for name, version in status.versions.items():
        newest = status.newest[name]
        note = "" if version == newest else f" (this program's: {newest})"
        rows.append((f"schema {name}", f"{version}{note}"))
    rows.append(("size", f"{status.bytes:,} bytes"))
    rows += [(f"{state} jobs", count) for state, count in status.jobs.items()]
    rows.append(("open", "no: " + status.closed if status.closed else "yes"))
    print_lines(rows)
    return 0


async def upgrade(arguments: argparse.Namespace, database: str) -> int:
    """Bring the schema up to date, as a server does itself."""
    transfer = open_transfer(database)
    await transfer.upgrade(arguments.minion_schema)
    status = await transfer.status()
    print(", ".join(f"{name}: version {version}" for name, version in status.versions.items()))
    return 0


async def back_up(arguments: argparse.Namespace, database: str) -> int:
    """Write a copy into a new file, while servers go on."""
    await open_transfer(database).backup(parse_path(arguments.file))
    return 0


async def restore_backup(arguments: argparse.Namespace, database: str) -> int:
    """Fill an empty database from a file of `backup`."""
    path = parse_path(arguments.file).absolute()
    async with open_transfer(sqlite_url(path)).read() as records:
        _print_counts(await open_transfer(database).write(records))
    return 0


async def move(arguments: argparse.Namespace, database: str) -> int:
    """Move the queue to an empty database, while servers go on."""
    source, target = open_transfer(database), open_transfer(arguments.target)
    written = await move_queue(source, target, arguments.wait)
    if written is None:
        return EXIT_INTERRUPTED
    _print_counts(written)
    return 0


async def reopen(_arguments: argparse.Namespace, database: str) -> int:
    """Let servers use the database again after a `copy` away from it."""
    await open_transfer(database).reopen()
    return 0


def _print_counts(written: Mapping[str, int]) -> None:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in written.items())
    print(counts or "nothing")
