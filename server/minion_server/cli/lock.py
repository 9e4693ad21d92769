"""`minion lock`: named locks that expire."""

from __future__ import annotations

import argparse
import time
from datetime import timedelta
from typing import Final

from minion.v1 import lock_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.holding import EXIT_SIGNALLED, Holder, Signals, refusal_to_run, run_held
from minion_server.cli.output import (
    print_list,
    print_message,
    print_warning,
    show_time,
)
from minion_server.cli.verbs import add_page_arguments, add_verbs, collect, each
from minion_server.domain.errors import Invalid
from minion_server.settings.values import (
    argument,
    parse_duration,
    parse_id,
    parse_natural,
    parse_positive_duration,
)

DEFAULT_DURATION: Final = timedelta(hours=1)
POLL_SECONDS: Final = 0.5
COLUMNS: Final = {
    "ID": lambda lock: lock.id,
    "NAME": lambda lock: lock.name,
    "EXPIRES": lambda lock: show_time(lock.expires),
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "lock", "list, acquire, renew and release locks")

    listing = add("list", list_locks, "list locks that have not expired, newest first")
    listing.add_argument("names", nargs="*", metavar="NAME", help="only locks of these names")
    add_page_arguments(listing)

    acquiring = add(
        "acquire", acquire_lock, "acquire a lock, and print its id; the exit status is 1 if held"
    )
    acquiring.add_argument("name", help="name of the lock")
    _add_duration(acquiring, "how long it is held at most; 0 only asks")
    _add_taking(acquiring)

    renewing = add("renew", renew_lock, "let a lock expire later; the exit status is 1 if it has")
    renewing.add_argument("name", help="name of the lock")
    renewing.add_argument("id", type=argument(parse_id), metavar="ID", help="id, from `acquire`")
    _add_duration(renewing, "how long it is held from now on", zero=False)

    releasing = add("release", release_locks, "release locks")
    releasing.add_argument("names", nargs="+", metavar="NAME")
    releasing.add_argument(
        "--id",
        type=argument(parse_id),
        help="id, from `acquire`: no other holder's (default: the one that expires first)",
    )

    running = add("run", run_command, "hold a lock while a command runs")
    running.is_intermixed = False
    running.add_argument("name", help="name of the lock")
    _add_duration(
        running, "how long it stays when it is not renewed, as it is while this runs", zero=False
    )
    _add_taking(running)
    running.add_argument(
        "command", nargs="+", type=str, metavar="COMMAND", help="after --, with its arguments"
    )


def _add_duration(parser: argparse.ArgumentParser, text: str, *, zero: bool = True) -> None:
    parser.add_argument(
        "-D",
        "--duration",
        type=argument(parse_duration if zero else parse_positive_duration),
        default=DEFAULT_DURATION,
        metavar="DURATION",
        help=f"{text}: 10s, 5m, 2h, 1d (default: 1h)",
    )


def _add_taking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        type=argument(parse_natural),
        metavar="N",
        help="how many may hold it at once (default: 1)",
    )
    parser.add_argument(
        "--wait",
        type=argument(parse_duration),
        default=timedelta(),
        metavar="DURATION",
        help="how long to wait for it (default: not at all)",
    )


def list_locks(arguments: argparse.Namespace, connection: Connection) -> int:
    """List locks."""
    response = collect(
        connection.locks.ListLocks,
        pb.ListLocksRequest(names=arguments.names),
        arguments.limit,
        arguments.offset,
    )
    return print_list(response, COLUMNS, as_json=arguments.json)


def acquire_lock(arguments: argparse.Namespace, connection: Connection) -> int:
    """Acquire a lock."""
    response = _acquire(arguments, connection)
    if arguments.json:
        print_message(response)
    elif not response.acquired:
        print_warning(f"the lock {arguments.name!r} is held")
    elif response.HasField("id"):
        print(response.id)
    return 0 if response.acquired else 1


def renew_lock(arguments: argparse.Namespace, connection: Connection) -> int:
    """Renew a lock."""
    request = pb.RenewLockRequest(name=arguments.name, id=arguments.id, duration=arguments.duration)
    response = connection.locks.RenewLock(request)
    if arguments.json:
        print_message(response)
    elif not response.renewed:
        print_warning(f"there is no lock {arguments.name!r} with id {arguments.id} any more")
    return 0 if response.renewed else 1


def release_locks(arguments: argparse.Namespace, connection: Connection) -> int:
    """Release locks."""
    if arguments.id is not None and len(arguments.names) > 1:
        raise Invalid("--id", f"expected one NAME with it, got {len(arguments.names)}")
    return each(
        arguments,
        arguments.names,
        lambda name: connection.locks.ReleaseLock(
            pb.ReleaseLockRequest(name=name, id=arguments.id)
        ),
        "released",
        lambda name: f"nobody holds the lock {name!r}",
    )


def run_command(arguments: argparse.Namespace, connection: Connection) -> int:
    """Hold a lock while a command runs, and return the command's exit status."""
    # Before the lock is held, which would be in vain.
    if status := refusal_to_run(arguments.command[0]):
        return status
    with Signals() as signals:
        response = _acquire(arguments, connection, signals)
        if not response.acquired and signals.first:
            return EXIT_SIGNALLED + signals.first
        if not response.acquired:
            print_warning(f"the lock {arguments.name!r} is held")
            return 1
        holder = Holder(
            connection,
            name=arguments.name,
            lock_id=response.id,
            duration=arguments.duration.total_seconds(),
        )
        return run_held(arguments.command, holder, signals)


def _acquire(
    arguments: argparse.Namespace, connection: Connection, signals: Signals | None = None
) -> pb.AcquireLockResponse:
    request = pb.AcquireLockRequest(
        name=arguments.name, duration=arguments.duration, limit=arguments.limit
    )
    end = time.monotonic() + arguments.wait.total_seconds()
    response = connection.locks.AcquireLock(request)
    while not response.acquired:
        left = end - time.monotonic()
        if left <= 0 or (signals is not None and signals.first):
            break
        time.sleep(min(POLL_SECONDS, left))
        # A server that restarts meanwhile is waited for as the lock is, but a call that it may have
        # carried out is not repeated: the lock would be held and nobody would know its id.
        if connection.is_ready(POLL_SECONDS):
            response = connection.locks.AcquireLock(request, wait_for_ready=True)
    return response
