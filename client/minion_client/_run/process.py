"""One child process of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from minion_wire.json_value import JsonValue
from minion_wire.sizes import MAX_JOB_BYTES, MAX_TEXT_FACTOR

from minion_client._run.child import LOST_CONNECTION
from minion_client._run.frames import FrameDecoder, FrameError, Message, encode_frame
from minion_client._run.guard import Guard
from minion_client._run.spawn import exited, spawn
from minion_client._run.state_items import DIRECTORY
from minion_client._run.verdict import Verdict, exit_text
from minion_client.source import ClaimedJob

_log = logging.getLogger(__name__)

_FRAME_OVERHEAD = 65_536
_EXIT_SECONDS = 3.0
_DRAIN_SECONDS = 1.0
_CLOSED = "Job closed the connection of its worker process"
_GARBLED = "Job wrote to the connection of its worker process"


class ChildStartError(RuntimeError):
    """A child process did not become ready; the text has the reason."""


def _own_path() -> list[str]:
    # The child's own path would not contain the folder of the worker's script.
    return [str(Path(entry).absolute()) for entry in sys.path]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSettings:
    """Settings of a child process.

    Attributes:
        modules: Names of the modules that define the tasks.
        import_path: Its `sys.path`; by default the worker's, so that both import the same modules.
        env: Its environment; by default the worker's at this moment, since a task may change it.
        directory: Its working directory, with the same default; empty if that has been removed.
        max_json_bytes: Maximum size of a result, or of one call's notes, as encoded.
        start_timeout: Seconds within which it must import the modules.
    """

    modules: Sequence[str] = ()
    import_path: Sequence[str] = field(default_factory=_own_path)
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    directory: str = field(default_factory=DIRECTORY.read)
    max_json_bytes: int = MAX_JOB_BYTES
    start_timeout: float = 60.0


class ChildJob(Protocol):
    """The methods of a run that its child process calls."""

    job: ClaimedJob

    def started(self) -> None: ...
    def note(self, notes: Mapping[str, JsonValue]) -> None: ...
    def end(self, verdict: Verdict) -> None: ...

    def lost(self, returncode: int) -> None:
        """Handle the end of the process before the job started."""


class ChildProcess(asyncio.Protocol):
    """The worker's side of a child process, created by `start`.

    Attributes:
        runs: Number of jobs it was given.
        job_started: Whether the last job has started.
        usable: Whether it can be given another job; false after `close` and `kill`.
        exited: A task that ends with the process; its result is the return code.
    """

    exited: asyncio.Task[int]

    def __init__(
        self, settings: ChildSettings, released: Callable[[ChildProcess], None], guard: Guard
    ) -> None:
        self.runs = 0
        self.job_started = True
        self.usable = True
        self._settings = settings
        self._released = released
        self._guard = guard
        self._fault: str | None = None
        self._decoder = FrameDecoder(settings.max_json_bytes * MAX_TEXT_FACTOR + _FRAME_OVERHEAD)
        self._transport: asyncio.WriteTransport | None = None
        self._closed = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._job: ChildJob | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._killer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """Process id, also that of its process group."""
        return self._running.pid

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start() sets it"
        return self._process

    @classmethod
    async def start(
        cls, settings: ChildSettings, released: Callable[[ChildProcess], None], guard: Guard
    ) -> ChildProcess:
        """Start a process and wait until it has imported the tasks.

        Args:
            settings: Its settings.
            released: Called with the process after each job that it survives.
            guard: Kills the process when the worker dies.

        Raises:
            ChildStartError: The process did not become ready.
        """
        child = cls(settings, released, guard)
        try:
            await child._spawn()
        except OSError as error:
            raise ChildStartError(f"cannot start a worker process: {error}") from error
        try:
            async with asyncio.timeout(settings.start_timeout):
                await child._ready
        except BaseException as error:
            child._ready.cancel()
            child.kill()
            await child.exited
            if isinstance(error, TimeoutError):
                text = f"a worker process was not ready after {settings.start_timeout:g} seconds"
                raise ChildStartError(text) from None
            raise
        return child

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = (
                    sys.executable,
                    # As in multiprocessing; there is no public function for it.
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]  # noqa: SLF001
                    *("-P", "-m", "minion_client._run.child"),
                    *(str(theirs.fileno()), str(os.getpid())),
                )
                self._process = spawn(
                    command,
                    env=self._settings.env,
                    fd=theirs.fileno(),
                    directory=self._settings.directory,
                )
            self._guard.add(self.pid)
            ours.setblocking(False)  # noqa: FBT003 - the signature is socket's
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            if self._process is not None:
                self.kill()
                self._guard.remove(self.pid)
                self._running.wait()
            raise
        setup = {
            "modules": list(self._settings.modules),
            "path": list(self._settings.import_path),
            "max_json_bytes": self._settings.max_json_bytes,
            "log_level": logging.getLogger().getEffectiveLevel(),
        }
        self._send(encode_frame(setup))
        self.exited = loop.create_task(self._wait())

    def run(self, job: ChildJob, frame: bytes) -> None:
        """Run a job, encoded as a frame."""
        self.runs += 1
        self.job_started = False
        self._job = job
        self._send(frame)

    def close(self) -> None:
        """Let the idle process end, and kill it if it does not."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()
        if self._killer is None:
            self._killer = asyncio.get_running_loop().call_later(_EXIT_SECONDS, self.kill)

    def kill(self) -> None:
        """Kill the process and what it started."""
        self.usable = False
        if self._running.returncode is None:
            self._kill_group()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        # Not with Popen, which may reap the process.
        if self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _wait(self) -> int:
        await exited(self._running)
        self.usable = False
        if self._killer is not None:
            self._killer.cancel()
        # Kill what tasks left running, before the process is reaped and its id can be reused.
        self._kill_group()
        self._guard.remove(self.pid)
        returncode = self._running.wait()
        # Messages from before its death may still arrive.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._closed.wait()
        if self._transport is not None:
            self._transport.abort()
        if not self._ready.done():
            text = f"a worker process ended before it was ready (return code {returncode})"
            self._ready.set_exception(ChildStartError(text))
        job, self._job = self._job, None
        if job is not None:
            if self.job_started:
                job.end(Verdict(failed=True, result=self._exit_text(returncode)))
            else:
                job.lost(returncode)
        return returncode

    def _exit_text(self, returncode: int) -> str:
        if self._fault is not None:
            return self._fault
        return _CLOSED if returncode == LOST_CONNECTION else exit_text(returncode)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, not their base class.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except (FrameError, KeyError) as error:
            # A task may have written to the descriptor: do not trust the process any more.
            _log.error("worker process %d sent an invalid message: %s", self.pid, error)
            self._fault = _GARBLED
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base's name
        # The process cannot be used without the connection.
        self._closed.set()
        self.usable = False
        if self._killer is None:
            # Usually the process is ending already, with its own return code.
            self._killer = asyncio.get_running_loop().call_later(_DRAIN_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        self._fault = self._fault or _CLOSED
        self.kill()

    def _take(self, message: Message) -> None:
        job = self._job
        match message["kind"]:
            case "ready" if not self._ready.done():
                self._ready.set_result(None)
            case "error" if not self._ready.done():
                self._ready.set_exception(ChildStartError(message["text"]))
            case "started" if job is not None and job.job.id == message["job_id"]:
                self.job_started = True
                job.started()
            case "note" if job is not None and job.job.id == message["job_id"]:
                job.note(message["notes"])
            case "end" if job is not None:
                self._job = None
                if message["unrestored"]:
                    _log.debug("worker process %d is replaced: %s", self.pid, message["unrestored"])
                    self.usable = False
                job.end(Verdict(failed=message["failed"], result=message["result"]))
                self._released(self)
            case _:
                # For example notes of a job that has ended.
                pass

    def _send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
