"""`minion lock`: named locks that expire."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from minion.v1 import lock_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.holding import (
    EXIT_SIGNALLED,
    Holder,
    Signals,
    check_command,
    run_command,
)
from minion_server.cli.output import fields, print_warning
from minion_server.cli.parsers import Commands, VerbParser, add_names, add_page_arguments
from minion_server.cli.verbs import add_verbs, each, make_request, print_pages, report
from minion_server.domain.errors import Invalid
from minion_server.settings.values import (
    parse_duration,
    parse_id,
    parse_natural,
    parse_positive_duration,
)

DEFAULT_DURATION: Final = timedelta(hours=1)
POLL_SECONDS: Final = 0.5
COLUMNS: Final = fields("id", "name", "expires")


def add_parser(commands: Commands[Any]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "lock", "list, acquire, renew and release locks")

    listing = add("list", list_locks)
    add_names(listing, "*", "only locks of these names")
    add_page_arguments(listing)

    acquiring = add("acquire", acquire_lock)
    acquiring.add("name", "name of the lock")
    _add_duration(acquiring, "how long it is held at most; 0 only checks", parse_duration)
    _add_limit_and_wait(acquiring)

    renewing = add("renew", renew_lock)
    renewing.add("name", "name of the lock")
    renewing.add("id", "id, from `acquire`", parse_id)
    _add_duration(renewing, "how long it is held from now on")

    releasing = add("release", release_locks)
    add_names(releasing)
    text = "id, from `acquire`: no other holder's (default: the one that expires first)"
    releasing.add("--id", text, parse_id, metavar=None)

    running = add("run", run_under_lock)
    running.is_intermixed = False
    running.add("name", "name of the lock")
    _add_duration(running, "how long it stays when it is not renewed, as it is while this runs")
    _add_limit_and_wait(running)
    text = "after --, with its arguments"
    running.add("command", text, nargs="+", type=str, metavar="COMMAND")


def _add_duration(
    parser: VerbParser, text: str, parse: Callable[[str], timedelta] = parse_positive_duration
) -> None:
    text += ": 10s, 5m, 2h, 1d (default: 1h)"
    parser.add("-D --duration", text, parse, default=DEFAULT_DURATION)


def _add_limit_and_wait(parser: VerbParser) -> None:
    parser.add("--limit", "how many may hold it at once (default: 1)", parse_natural)
    text = "how long to wait for it (default: not at all)"
    parser.add("--wait", text, parse_duration, default=timedelta())


def list_locks(arguments: argparse.Namespace, connection: Connection) -> int:
    """List locks that have not expired, newest first."""
    request = make_request(pb.ListLocksRequest, arguments)
    return print_pages(arguments, connection.locks.ListLocks, request, COLUMNS)


def acquire_lock(arguments: argparse.Namespace, connection: Connection) -> int:
    """Acquire a lock, and print its id; the exit status is 1 if held."""
    response = _acquire(arguments, connection)
    if response.HasField("id") and not arguments.json:
        print(response.id)
    return report(arguments, response, "acquired", _held(arguments.name))


def renew_lock(arguments: argparse.Namespace, connection: Connection) -> int:
    """Let a lock expire later; the exit status is 1 if it has."""
    response = connection.locks.RenewLock(make_request(pb.RenewLockRequest, arguments))
    refusal = f"there is no lock {arguments.name!r} with id {arguments.id} any more"
    return report(arguments, response, "renewed", refusal)


def release_locks(arguments: argparse.Namespace, connection: Connection) -> int:
    """Release locks."""
    if arguments.id is not None and len(arguments.names) > 1:
        raise Invalid("--id", f"expected one NAME with it, got {len(arguments.names)}")

    def release(name: str) -> pb.ReleaseLockResponse:
        request = make_request(pb.ReleaseLockRequest, arguments, name=name)
        return connection.locks.ReleaseLock(request)

    return each(
        arguments,
        arguments.names,
        release,
        "released",
        lambda name: f"nobody holds the lock {name!r}",
    )


def run_under_lock(arguments: argparse.Namespace, connection: Connection) -> int:
    """Hold a lock while a command runs."""
    if status := check_command(arguments.command[0]):
        return status
    with Signals() as signals:
        response = _acquire(arguments, connection, signals)
        if response.acquired:
            holder = Holder(
                connection,
                name=arguments.name,
                lock_id=response.id,
                duration=arguments.duration,
            )
            with holder.hold():
                return run_command(arguments.command, signals)
        if signals.first:
            return EXIT_SIGNALLED + signals.first
        print_warning(_held(arguments.name))
        return 1


def _acquire(
    arguments: argparse.Namespace, connection: Connection, signals: Signals | None = None
) -> pb.AcquireLockResponse:
    request = make_request(pb.AcquireLockRequest, arguments)
    end = time.monotonic() + arguments.wait.total_seconds()
    response: pb.AcquireLockResponse = connection.locks.AcquireLock(request)
    while not response.acquired:
        left = end - time.monotonic()
        if left <= 0 or (signals is not None and signals.first):
            break
        time.sleep(min(POLL_SECONDS, left))
        # Wait for a server that restarts, but do not repeat a call that it may have carried out:
        # the lock would be held under an id that nobody knows.
        if connection.is_ready(POLL_SECONDS):
            response = connection.locks.AcquireLock(request, wait_for_ready=True)
    return response


def _held(name: str) -> str:
    return f"the lock {name!r} is held"
