"""A process that kills a worker's child processes, and what they started, when the worker dies.

A child cannot always end itself: C code of a task may hold the interpreter's lock. And a child
that the kernel kills leaves running what it started. The process runs `guard_program`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path

_log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_name("guard_program.py")
_guards: weakref.WeakSet[Guard] = weakref.WeakSet()


class Guard:
    """The guard: it reads process groups from a pipe, and kills them when the pipe closes."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()
        _guards.add(self)

    def start(self) -> None:
        """Start the guard, unless it is running."""
        if self._process is None:
            self._spawn()

    def stop(self) -> None:
        """Stop the guard; it kills the groups that are left."""
        process, self._process = self._process, None
        if process is not None:
            _close(process)
            process.wait()

    def add(self, group: int) -> None:
        """Add a process group to kill when this process dies."""
        self._groups.add(group)
        self._send(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Remove a process group; call this before its leader is reaped."""
        self._groups.discard(group)
        self._send(f"-{group}\n")

    def close_in_fork(self) -> None:
        """Close the pipe in a forked process, which would keep it open."""
        if self._process is not None:
            _close(self._process)
            # The guard is not a child of the forked process.
            self._process.returncode = 0

    def _send(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            os.write(self._process.stdin.fileno(), line.encode())
        except BlockingIOError:
            # The pipe is full: the guard is suspended.
            pass
        except OSError:
            _log.warning("the guard of the worker processes has died; it is replaced")
            _close(self._process)
            self._process.wait()
            self._spawn()

    def _spawn(self) -> None:
        command = (sys.executable, "-I", "-S", str(_PROGRAM))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - not user input
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._process = None
            _log.warning("cannot start a guard for worker processes: %s", error)
            return
        assert self._process.stdin is not None, "it is a pipe"
        os.set_blocking(self._process.stdin.fileno(), False)
        # If it has died already, the next `_send` replaces it.
        with contextlib.suppress(OSError):
            lines = "".join(f"+{group}\n" for group in self._groups)
            os.write(self._process.stdin.fileno(), lines.encode())


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _close_in_fork() -> None:
    for guard in _guards:
        guard.close_in_fork()


os.register_at_fork(after_in_child=_close_in_fork)
