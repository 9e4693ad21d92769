"""A command that runs while a lock is held: it is renewed meanwhile, and released at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Self

import grpc
from minion.v1 import lock_service_pb2 as pb

from minion_server.cli.connection import Connection, persist
from minion_server.cli.output import print_warning

EXIT_SIGNALLED: Final = 128
"""Added to the number of the signal that ended a command, as shells do."""
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
"""As shells do, too."""
SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
RENEWALS: Final = 3
"""Within one duration, so that a call or two may fail."""
SHORTEST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 3_600.0


class Holder:
    """Holds a lock until it is released, by renewing it.

    Args:
        connection: To the server.
        name: Name of the lock.
        lock_id: Its id.
        duration: Seconds that it is acquired and renewed for.
    """

    def __init__(self, connection: Connection, *, name: str, lock_id: int, duration: float) -> None:
        self._connection = connection
        self._name = name
        self._id = lock_id
        self._duration = duration
        self._ended = threading.Event()
        self._lost = False
        self._renewing = threading.Thread(target=self._renew_until_end, daemon=True)
        self._renewing.start()

    def release(self) -> None:
        """Release the lock, or warn that it cannot be, or that it was lost meanwhile."""
        self._ended.set()
        self._renewing.join()
        request = pb.ReleaseLockRequest(name=self._name, id=self._id)
        attempts = 0

        def call() -> pb.ReleaseLockResponse:
            nonlocal attempts
            attempts += 1
            return self._connection.locks.ReleaseLock(request)

        try:
            released = persist(call).released
        except grpc.RpcError as error:
            why = self._connection.endpoint.explain(error)
            print_warning(f"the lock {self._name!r} is left to expire: {why}")
            return
        # An earlier attempt may have succeeded without a response.
        if not released and attempts == 1:
            self._warn_of_loss("it expired or was released")

    def _renew_until_end(self) -> None:
        request = pb.RenewLockRequest(name=self._name, id=self._id)
        request.duration.FromMilliseconds(max(1, round(self._duration * 1_000)))
        pause = min(max(self._duration / RENEWALS, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        # Given up in time for the next.
        timeout = min(self._connection.timeout, pause)
        expires = time.monotonic() + self._duration
        while not self._ended.wait(pause):
            asked = time.monotonic()
            try:
                renewed = self._connection.locks.RenewLock(request, timeout=timeout).renewed
            except grpc.RpcError as error:
                if time.monotonic() > expires:
                    self._warn_of_loss(self._connection.endpoint.explain(error))
                continue
            if not renewed:
                self._warn_of_loss("it expired or was released")
                return
            expires = asked + self._duration

    def _warn_of_loss(self, why: str) -> None:
        if not self._lost:
            self._lost = True
            print_warning(f"the lock {self._name!r} was lost while the command ran: {why}")


class Signals:
    """Passes signals on to a command: its end, not this process's, releases the lock.

    Attributes:
        first: The number of the first signal; 0 if there was none.
    """

    first: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # One that is ignored stays so, as nohup has it for SIGHUP; the command inherits that.
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
        """Wait for a command, passing on all signals from the first one on; return its status."""
        self._process = process
        if self.first:
            process.send_signal(self.first)
        return process.wait()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or number
        # The terminal sends these to the command itself.
        if self._process is not None and (number == signal.SIGTERM or not _has_terminal()):
            self._process.send_signal(number)


def refusal_to_run(command: str) -> int:
    """Return the exit status of a command that cannot be run, with a warning; 0 if it may be."""
    if shutil.which(command):
        return 0
    if os.sep in command and Path(command).exists():
        print_warning(f"cannot run {command!r}: it is not executable")
        return EXIT_NOT_EXECUTABLE
    print_warning(f"cannot run {command!r}: there is no such command")
    return EXIT_NOT_FOUND


def run_held(command: Sequence[str], holder: Holder, signals: Signals) -> int:
    """Run a command unless there has been a signal, release the lock, and return the exit status.

    The status is the command's, or as a shell has it: 128 and the number of the signal that ended
    it, or 126 or 127 if it could not be run.
    """
    try:
        if signals.first:
            return EXIT_SIGNALLED + signals.first
        try:
            # What to run is what the caller asks for.
            process = subprocess.Popen(command)  # noqa: S603
        except OSError as error:
            # What was looked at before may be gone, or of a format that is not known.
            print_warning(f"cannot run {command[0]!r}: {error.strerror}")
            gone = isinstance(error, FileNotFoundError)
            return EXIT_NOT_FOUND if gone else EXIT_NOT_EXECUTABLE
        with process:
            status = signals.wait(process)
        return status if status >= 0 else EXIT_SIGNALLED - status
    finally:
        holder.release()


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
