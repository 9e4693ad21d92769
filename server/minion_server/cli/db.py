"""`minion db`: what is done to a database as a whole."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any

from minion_server.cli.output import print_warning
from minion_server.domain.errors import Conflict, MinionError
from minion_server.settings.options import Option, pick
from minion_server.settings.sources import add_arguments, resolve
from minion_server.settings.values import parse_path, parse_seconds
from minion_server.storage.transfer import Transfer
from minion_server.stores import default_database, open_transfer, sqlite_url

DB_OPTIONS = pick("data_dir", "database")
WAIT = Option(
    name="wait",
    parse=parse_seconds,
    help="how long running jobs are waited for (default: %(default)s); those that remain are tried"
    " again there, where attempts are left",
    default=60.0,
    metavar="SECONDS",
)
POLL_SECONDS = 0.2

Verb = Callable[[argparse.Namespace, str], Coroutine[Any, Any, int]]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs."""
    text = "look after the database: upgrade it, copy it, move it"
    parser = commands.add_parser("db", help=text, description=text[0].upper() + text[1:] + ".")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, verb: Verb, text: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.set_defaults(run=run, verb=verb)
        add_arguments(one, DB_OPTIONS)
        return one

    status = add("status", show_status, "show the versions, the size and what it holds")
    status.add_argument("--json", action="store_true", help="print JSON, for scripts")
    upgrading = add("upgrade", upgrade, "bring the schema up to date, as a server does itself")
    upgrading.add_argument(
        "--minion-schema",
        type=int,
        metavar="VERSION",
        help="bring Perl Minion's own schema to this version too: an older Perl Minion cannot use"
        " the database any more",
    )
    backup = add("backup", back_up, "write a copy into a new file, while servers go on")
    backup.add_argument("file", help="the file: an embedded database of its own")
    restore = add("restore", restore_backup, "fill an empty database from a file of `backup`")
    restore.add_argument("file", help="the file")
    copy = add("copy", move, "move the queue to an empty database, while servers go on")
    copy.add_argument("target", help="URL of the database to move to")
    copy.add_argument(WAIT.flag, default=f"{WAIT.default:g}", metavar=WAIT.metavar, help=WAIT.help)
    add("reopen", reopen, "let servers use the database again after a `copy` away from it")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    values = resolve(DB_OPTIONS, arguments)
    database = values["database"] or default_database(values["data_dir"])
    status: int = asyncio.run(arguments.verb(arguments, database))
    return status


async def show_status(arguments: argparse.Namespace, database: str) -> int:
    """Show what there is to know of the database."""
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
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {value}")
    return 0


async def upgrade(arguments: argparse.Namespace, database: str) -> int:
    """Bring the schemas up to date."""
    transfer = open_transfer(database)
    await transfer.upgrade(arguments.minion_schema)
    status = await transfer.status()
    print(", ".join(f"{name}: version {version}" for name, version in status.versions.items()))
    return 0


async def back_up(arguments: argparse.Namespace, database: str) -> int:
    """Write a copy into a file."""
    await open_transfer(database).backup(parse_path(arguments.file))
    return 0


async def restore_backup(arguments: argparse.Namespace, database: str) -> int:
    """Fill an empty database from a copy."""
    path = parse_path(arguments.file).absolute()
    async with open_transfer(sqlite_url(path)).read() as records:
        _print_counts(await open_transfer(database).write(records))
    return 0


async def move(arguments: argparse.Namespace, database: str) -> int:
    """Move the queue to another database.

    No job is lost and none is performed twice: first no jobs are given out any more, then those
    that run are waited for, and last everything is copied while writes are refused, as they are
    here from then on.
    """
    source, target = open_transfer(database), open_transfer(arguments.target)
    seconds = WAIT.read(arguments.wait, WAIT.flag)
    await _check_move(source, target)
    written: Mapping[str, int] | None = None
    # Not within: it is refused if another move has closed the queue, which must stay so then.
    await source.hold()
    try:
        remaining = await _wait_for_active(source, seconds)
        if remaining:
            print_warning(f"{remaining} jobs are still running: they are moved as they are")
        seal = f"the queue has been moved to {target.place}"
        async with source.read(seal=seal) as records:
            written = await target.write(records)
    except BaseException:
        # Once it is there, it must not be served from here too, whatever happened after that.
        if written is None:
            await _reopen(source)
        else:
            print_warning(f"the queue is at {target.place} now: do not reopen {source.place}")
        raise
    _print_counts(written)
    return 0


async def _check_move(source: Transfer, target: Transfer) -> None:
    """Raise the errors that a move would end with, while the queue still runs."""
    if await source.identity() == await target.identity():
        raise Conflict(f"the queue cannot be moved to where it is: {target.place}")
    if closed := (await source.status()).closed:
        raise Conflict(f"{source.place} is closed: {closed} (`minion db reopen` would open it)")
    await target.check_empty()


async def _reopen(source: Transfer) -> None:
    """Open a queue again, or tell how to."""
    try:
        await source.reopen()
    except (MinionError, OSError) as error:
        print_warning(
            f"the queue at {source.place} may give out no jobs until `minion db reopen` has opened "
            f"it, which failed now: {error}"
        )


async def reopen(_arguments: argparse.Namespace, database: str) -> int:
    """Let servers use the database again."""
    await open_transfer(database).reopen()
    return 0


async def _wait_for_active(source: Transfer, seconds: float) -> int:
    end = time.monotonic() + seconds
    # Another server may end them, without a notice to this process.
    while (active := await source.active_jobs()) and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    return active


def _print_counts(written: Mapping[str, int]) -> None:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in written.items())
    print(counts or "nothing")
