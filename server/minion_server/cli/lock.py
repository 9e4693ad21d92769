"""`minion lock`: named locks that expire."""

from __future__ import annotations

import argparse
import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Final, Self

from minion.v1 import lock_service_pb2 as pb

from minion_server.cli import readers
from minion_server.cli.connection import Connection
from minion_server.cli.output import (
    print_message,
    print_rest,
    print_table,
    print_warning,
    show_time,
)
from minion_server.cli.verbs import add_page_arguments, add_verbs, collect, each

DEFAULT_DURATION: Final = timedelta(hours=1)
POLL_SECONDS: Final = 0.5
EXIT_SIGNALLED: Final = 128
"""Added to the number of the signal that ended a command, as shells do."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "lock", "list, acquire and release locks")

    listing = add("list", list_locks, "list locks that have not expired, newest first")
    listing.add_argument("names", nargs="*", metavar="NAME", help="only locks of these names")
    add_page_arguments(listing)

    acquiring = add("acquire", acquire_lock, "acquire a lock; the exit status is 1 if it is held")
    acquiring.add_argument("name", help="name of the lock")
    _add_lock_options(acquiring)

    releasing = add("release", release_locks, "release locks")
    releasing.add_argument("names", nargs="+", metavar="NAME")

    running = add("run", run_command, "hold a lock while a command runs")
    running.is_intermixed = False
    running.add_argument("name", help="name of the lock")
    _add_lock_options(running)
    running.add_argument(
        "command", nargs="+", type=str, metavar="COMMAND", help="after --, with its arguments"
    )


def _add_lock_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-D",
        "--duration",
        type=readers.duration,
        default=DEFAULT_DURATION,
        metavar="DURATION",
        help="how long it is held at most: 10s, 5m, 2h, 1d; 0 only asks (default: 1h)",
    )
    parser.add_argument(
        "--limit", type=readers.count, metavar="N", help="how many may hold it at once (default: 1)"
    )
    parser.add_argument(
        "--wait",
        type=readers.duration,
        default=timedelta(),
        metavar="DURATION",
        help="how long to wait for it (default: not at all)",
    )


def list_locks(arguments: argparse.Namespace, connection: Connection) -> int:
    """List locks."""
    response = collect(
        lambda page: connection.locks.ListLocks(page, **connection.call),
        pb.ListLocksRequest(names=arguments.names),
        arguments.limit,
        arguments.offset,
    )
    if arguments.json:
        print_message(response)
        return 0
    print_table(
        ("ID", "NAME", "EXPIRES"),
        [(lock.id, lock.name, show_time(lock.expires)) for lock in response.locks],
    )
    print_rest(len(response.locks), response.total)
    return 0


def acquire_lock(arguments: argparse.Namespace, connection: Connection) -> int:
    """Acquire a lock."""
    response = _acquire(arguments, connection)
    if arguments.json:
        print_message(response)
    elif not response.acquired:
        print_warning(f"the lock {arguments.name!r} is held")
    return 0 if response.acquired else 1


def release_locks(arguments: argparse.Namespace, connection: Connection) -> int:
    """Release locks."""
    return each(
        arguments,
        arguments.names,
        lambda name: connection.locks.ReleaseLock(
            pb.ReleaseLockRequest(name=name), **connection.call
        ),
        "released",
        lambda name: f"nobody holds the lock {name!r}",
    )


def run_command(arguments: argparse.Namespace, connection: Connection) -> int:
    """Hold a lock while a command runs, and answer the command's exit status."""
    with _Signals() as signals:
        if not _acquire(arguments, connection, signals).acquired:
            print_warning(f"the lock {arguments.name!r} is held")
            return 1
        try:
            return signals.run(arguments.command)
        finally:
            connection.locks.ReleaseLock(
                pb.ReleaseLockRequest(name=arguments.name), **connection.call
            )


def _acquire(
    arguments: argparse.Namespace, connection: Connection, signals: _Signals | None = None
) -> pb.AcquireLockResponse:
    request = pb.AcquireLockRequest(
        name=arguments.name, duration=arguments.duration, limit=arguments.limit
    )
    end = time.monotonic() + arguments.wait.total_seconds()
    while True:
        response: pb.AcquireLockResponse = connection.locks.AcquireLock(request, **connection.call)
        left = end - time.monotonic()
        if response.acquired or left <= 0 or (signals is not None and signals.told):
            return response
        time.sleep(min(POLL_SECONDS, left))


class _Signals:
    """Passes SIGTERM on to the command: its end, not this process's, releases the lock."""

    told: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # The terminal sends SIGINT to the command itself.
        self._before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._take),
            signal.SIGINT: signal.signal(signal.SIGINT, self._wait),
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str]) -> int:
        """Run a command, unless there has been a signal, and answer its exit status."""
        if self.told:
            return EXIT_SIGNALLED + self.told
        # What to run is what the caller asks for.
        with subprocess.Popen(command) as process:  # noqa: S603
            self._process = process
            if self.told:
                process.send_signal(self.told)
            status = process.wait()
        return status if status >= 0 else EXIT_SIGNALLED - status

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.told = number
        if self._process is not None:
            self._process.send_signal(number)

    def _wait(self, number: int, _frame: FrameType | None) -> None:
        if self._process is None:
            self.told = number
