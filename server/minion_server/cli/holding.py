"""Hold a lock, which is renewed meanwhile and released at the end, and run a command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final, Self

import grpc
from minion.v1 import lock_service_pb2 as pb

from minion_server.cli.connection import Connection, background, persist
from minion_server.cli.output import print_warning

# The exit statuses of shells. The first is added to the number of the signal that ended a command.
EXIT_SIGNALLED: Final = 128
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
RENEWALS: Final = 3
"""Renewals within one duration, so that one or two may fail."""
SIGNAL_SECONDS: Final = 1.0
"""Maximum delay of a signal."""
SHORTEST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 3_600.0


class Holder:
    """Holds a lock by renewing it.

    Args:
        connection: To the server.
        name: Name of the lock.
        lock_id: Its id.
        duration: For how long it was acquired and is renewed.
    """

    def __init__(
        self, connection: Connection, *, name: str, lock_id: int, duration: timedelta
    ) -> None:
        self._connection = connection
        self._name = name
        self._id = lock_id
        self._duration = max(duration, timedelta(milliseconds=1))
        self._expires = time.monotonic() + duration.total_seconds()
        self._is_lost = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Renew the lock during the block, then release it; print a warning if it is lost."""
        pause = self._duration.total_seconds() / RENEWALS
        pause = min(max(pause, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        try:
            # A call ends before the next one is due.
            timeout = min(self._connection.timeout, pause)
            with background(lambda: self._renew(timeout), pause):
                yield
        finally:
            self._release()

    def _renew(self, timeout: float) -> bool:
        """Renew the lock, and return whether it may be renewed again."""
        request = pb.RenewLockRequest(name=self._name, id=self._id)
        request.duration.FromTimedelta(self._duration)
        asked = time.monotonic()
        try:
            renewed: bool = self._connection.locks.RenewLock(request, timeout=timeout).renewed
        except grpc.RpcError as error:
            if time.monotonic() > self._expires:
                self._warn_of_loss(self._connection.endpoint.explain(error))
            return True
        if not renewed:
            self._warn_of_loss("it expired or was released")
        self._expires = asked + self._duration.total_seconds()
        return renewed

    def _release(self) -> None:
        request = pb.ReleaseLockRequest(name=self._name, id=self._id)
        try:
            response, is_repeated = persist(lambda: self._connection.locks.ReleaseLock(request))
        except grpc.RpcError as error:
            why = self._connection.endpoint.explain(error)
            print_warning(f"the lock {self._name!r} is left to expire: {why}")
            return
        if not response.released and not is_repeated:
            self._warn_of_loss("it expired or was released")

    def _warn_of_loss(self, why: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            print_warning(f"the lock {self._name!r} was lost while the command ran: {why}")


class Signals:
    """Passes signals on to a command, whose end releases the lock.

    Attributes:
        first: The number of the first signal; 0 if there was none.
    """

    first: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # The command inherits those that are ignored, such as SIGHUP under nohup.
        self._before = {
            number: signal.signal(number, self._take)
            for number in SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Pass on all signals, the first one too, until a command ends; return its status."""
        self._process = process
        if self.first:
            process.send_signal(self.first)
        # Not in this thread: a signal that comes just before waitpid(2), or to a thread of gRPC, is
        # taken only when the main thread runs Python again.
        waiting = threading.Thread(target=process.wait, daemon=True)
        waiting.start()
        while waiting.is_alive():
            waiting.join(SIGNAL_SECONDS)
        return process.returncode

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or number
        # A terminal sends the others to the command itself.
        if self._process is not None and (number == signal.SIGTERM or not _has_terminal()):
            self._process.send_signal(number)


def check_command(command: str) -> int:
    """Print a warning for a command that cannot be run; return its exit status, or 0."""
    if shutil.which(command):
        return 0
    if os.sep in command and Path(command).exists():
        print_warning(f"cannot run {command!r}: it is not executable")
        return EXIT_NOT_EXECUTABLE
    print_warning(f"cannot run {command!r}: there is no such command")
    return EXIT_NOT_FOUND


def run_command(command: Sequence[str], signals: Signals) -> int:
    """Run a command, unless there has been a signal, and return the exit status as shells do."""
    if signals.first:
        return EXIT_SIGNALLED + signals.first
    try:
        process = subprocess.Popen(command)  # noqa: S603 - the caller's own command
    except OSError as error:
        # Removed since `check_command`, or of an unknown format.
        print_warning(f"cannot run {command[0]!r}: {error.strerror}")
        return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE
    with process:
        status = signals.wait(process)
    return status if status >= 0 else EXIT_SIGNALLED - status


def _has_terminal() -> bool:
    """Return whether this process is in the foreground of a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
