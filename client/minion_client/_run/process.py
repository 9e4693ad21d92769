"""One child process of a worker, and the performing of a job in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from minion_wire.sizes import MAX_JOB_BYTES, MAX_TEXT_FACTOR

from minion_client._run.child import LOST_CONNECTION
from minion_client._run.frames import FrameDecoder, FrameError, Message, encode_frame
from minion_client._run.guard import Guard
from minion_client._run.job_run import Bounds, Execution, Listener
from minion_client._run.spawn import exited, spawn
from minion_client._run.verdict import Verdict, exit_text, exit_words
from minion_client.source import ClaimedJob
from minion_client.tasks import Task

_log = logging.getLogger(__name__)

_FRAME_OVERHEAD = 65_536
_EXIT_SECONDS = 3.0
_DRAIN_SECONDS = 1.0
_MAX_STARTS = 3
"""Processes that a job is given to, at most, when they end before it begins."""
_CLOSED = "Job closed the connection of its worker process"
_GARBLED = "Job wrote to the connection of its worker process"


def _own_path() -> list[str]:
    # Not what the child's interpreter would make of it: the folder of a script is in the one, and
    # not in the other.
    return [str(Path(entry).absolute()) for entry in sys.path]


class ChildStartError(RuntimeError):
    """A child process did not become ready; the text says why."""


def _own_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - given back as it is
    except FileNotFoundError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSettings:
    """What a child process is started with.

    Attributes:
        modules: Names of the modules that define the tasks.
        path: Directories to find them in before those of `import_path`.
        import_path: The whole `sys.path` that follows; the worker's own if not given, so that a
            module is not another one in a child process.
        env: Environment variables to set besides the worker's own.
        own_env: The worker's own, as they were when this was made: a task may change them.
        directory: The working directory; the worker's own, for the same reason.
        max_json_bytes: Bytes that a result, or one call's notes, may have as encoded.
        start_timeout: Seconds in which it must have imported the modules.
    """

    modules: Sequence[str] = ()
    path: Sequence[str] = ()
    import_path: Sequence[str] = field(default_factory=_own_path)
    env: Mapping[str, str] = field(default_factory=dict)
    own_env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    directory: str | None = field(default_factory=_own_directory)
    max_json_bytes: int = MAX_JOB_BYTES
    start_timeout: float = 60.0


class ChildProcess(asyncio.Protocol):
    """A child process, as its worker sees it; made by `start`.

    Attributes:
        performed: How many jobs it was given.
        began: Whether the last of them began.
        usable: Whether it may be given another job: not once it was killed or asked for no more.
        exited: Ends when the process has; its result is the return code.
    """

    exited: asyncio.Task[int]

    def __init__(
        self, settings: ChildSettings, released: Callable[[ChildProcess], None], guard: Guard
    ) -> None:
        self.performed = 0
        self.began = True
        self.usable = True
        self._settings = settings
        self._released = released
        self._guard = guard
        self._fault: str | None = None
        self._decoder = FrameDecoder(settings.max_json_bytes * MAX_TEXT_FACTOR + _FRAME_OVERHEAD)
        self._transport: asyncio.WriteTransport | None = None
        self._closed = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._execution: ProcessExecution | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._killer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """Process id, which is that of its process group too."""
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
            settings: What to start it with.
            released: Called with the process whenever it has performed a job.
            guard: Ends the process when this one dies.

        Raises:
            ChildStartError: It did not get that far.
        """
        child = cls(settings, released, guard)
        try:
            await child._spawn()
        except OSError as error:
            raise ChildStartError(f"cannot start a worker process: {error}") from error
        try:
            async with asyncio.timeout(settings.start_timeout):
                await child._ready
        except TimeoutError:
            await child._discard()
            raise ChildStartError(
                f"a worker process was not ready after {settings.start_timeout:g} seconds"
            ) from None
        except BaseException:
            await child._discard()
            raise
        return child

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                command = (
                    sys.executable,
                    *_interpreter_flags(),
                    *(
                        "-P",
                        "-m",
                        "minion_client._run.child",
                        str(theirs.fileno()),
                        str(os.getpid()),
                    ),
                )
                env = {**self._settings.own_env, **self._settings.env}
                self._process = spawn(
                    command, env=env, fd=theirs.fileno(), directory=self._settings.directory
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
            "path": [*self._settings.path, *self._settings.import_path],
            "max_json_bytes": self._settings.max_json_bytes,
            "log_level": logging.getLogger().getEffectiveLevel(),
        }
        self._send(encode_frame(setup))
        self.exited = loop.create_task(self._wait())

    async def _discard(self) -> None:
        self._ready.cancel()
        self.kill()
        await self.exited

    def perform(self, execution: ProcessExecution, frame: bytes) -> None:
        """Perform a job; the execution is told what becomes of it."""
        self.performed += 1
        self.began = False
        self._execution = execution
        self._send(frame)

    def close(self) -> None:
        """Let the process end, now that it has nothing to do, and make sure that it does."""
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
        # Not by Popen, which may reap it.
        if self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _wait(self) -> int:
        await exited(self._running)
        self.usable = False
        if self._killer is not None:
            self._killer.cancel()
        # What a task left running in the background ends with the process it belongs to. Before
        # the process is reaped, whose id may be another's afterwards.
        self._kill_group()
        self._guard.remove(self.pid)
        returncode = self._running.wait()
        # What the process sent before it died may still be on its way.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._closed.wait()
        if self._transport is not None:
            self._transport.abort()
        if not self._ready.done():
            text = f"a worker process ended before it was ready (return code {returncode})"
            self._ready.set_exception(ChildStartError(text))
        execution, self._execution = self._execution, None
        if execution is not None:
            if self.began:
                text = self._exit_text(returncode)
                execution.ended(Verdict(failed=True, result=text))
            else:
                execution.lost(returncode)
        return returncode

    def _exit_text(self, returncode: int) -> str:
        if self._fault is not None:
            return self._fault
        return _CLOSED if returncode == LOST_CONNECTION else exit_text(returncode)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports have the methods of asyncio's, not their base class.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Take what the process sent."""
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except (FrameError, KeyError) as error:
            # A task wrote to the descriptor, or worse: nothing the process says can be trusted.
            _log.error("worker process %d sent what is no message: %s", self.pid, error)
            self._fault = _GARBLED
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base's name
        """End the process: without the connection it is of no use."""
        self._closed.set()
        self.usable = False
        if self._killer is None:
            # Mostly it is ending, and will say itself how.
            self._killer = asyncio.get_running_loop().call_later(_DRAIN_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        self._fault = self._fault or _CLOSED
        self.kill()

    def _take(self, message: Message) -> None:
        execution = self._execution
        match message["kind"]:
            case "ready" if not self._ready.done():
                self._ready.set_result(None)
            case "error" if not self._ready.done():
                self._ready.set_exception(ChildStartError(message["text"]))
            case "started" if execution is not None and execution.job.id == message["job_id"]:
                self.began = True
                execution.started()
            case "note" if execution is not None and execution.job.id == message["job_id"]:
                execution.noted(message["notes"])
            case "end" if execution is not None:
                self._execution = None
                if message["spoilt"]:
                    _log.debug("worker process %d is replaced: %s", self.pid, message["spoilt"])
                    self.usable = False
                execution.ended(Verdict(failed=message["failed"], result=message["result"]))
                self._released(self)
            case _:
                # Notes of a job that has ended.
                pass

    def _send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _interpreter_flags() -> list[str]:
    # As multiprocessing does; there is no public way to ask.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return flags


class Processes(ABC):
    """Provides child processes."""

    @abstractmethod
    def acquire(self, execution: ProcessExecution) -> None:
        """Have `execution.begin` called as soon as a process is free."""

    @abstractmethod
    def put_back(self, execution: ProcessExecution) -> None:
        """Have `execution.begin` called before those of all others that wait."""

    @abstractmethod
    def withdraw(self, execution: ProcessExecution) -> None:
        """Forget an execution that waits for a process."""


class ProcessExecution(Execution):
    """A job that runs in a child process; it is stopped by killing the process."""

    __slots__ = ("_child", "_frame", "_processes", "_starts")

    def __init__(
        self, job: ClaimedJob, task: Task, listener: Listener, bounds: Bounds, processes: Processes
    ) -> None:
        super().__init__(job, task, listener, bounds)
        self._processes = processes
        self._child: ChildProcess | None = None
        self._frame = b""
        self._starts = 0

    def start(self) -> None:
        """Begin, or wait for a process."""
        job = self.job
        message = {
            "id": job.id,
            "task": job.task,
            "args": job.args,
            "retries": job.retries,
            "attempts": job.attempts,
            "priority": job.priority,
            "queue": job.queue,
            "notes": job.notes,
        }
        try:
            self._frame = encode_frame(message)
        except TypeError as error:
            self.fail(f"Job could not be sent to a worker process: {error}")
        else:
            self._processes.acquire(self)

    def begin(self, child: ChildProcess) -> None:
        """Run in a process, which is this job's until it ends."""
        self._child = child
        self._starts += 1
        self._start_timer()
        child.perform(self, self._frame)

    def started(self) -> None:
        """Take note that the process has begun with the job."""
        # It will not be sent again.
        self._frame = b""

    def lost(self, returncode: int) -> None:
        """Begin again in another process: this one has ended before it began with the job."""
        self._child = None
        self._stop_timer()
        if self._reason is not None:
            self._fail(self._reason)
        elif self._starts < _MAX_STARTS:
            self._processes.put_back(self)
        else:
            self._fail(
                f"Job could not be started: {_MAX_STARTS} worker processes ended before it began,"
                f" the last one with {exit_words(returncode)}"
            )

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; what it does then is the task's business, but for KILL."""
        if self._child is None or number == signal.SIGKILL:
            super().send_signal(number)
        else:
            self._child.send_signal(number)

    def noted(self, notes: Message) -> None:
        """Take notes that the process sent."""
        self._note(notes)

    def ended(self, verdict: Verdict) -> None:
        """Take the verdict that the process sent, or that its death makes."""
        self._end(verdict)

    def fail(self, result: str) -> None:
        """Fail without a process."""
        self._fail(result)

    def _interrupt(self) -> None:
        if self._child is not None:
            self._child.kill()
        else:
            self._processes.withdraw(self)
            self._fail(self._reason)
