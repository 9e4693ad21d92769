"""The program of a worker's child processes, which run the jobs of plain functions.

`python -P -m minion_client._run.child FD PARENT`: FD is a connected stream socket, PARENT the
worker's process id. It receives its settings, sends `ready` or `error`, then receives one job at a
time and sends `started`, any number of `note` and one `end` for each. It ends when the other side
closes.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import ctypes
import faulthandler
import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from typing import NoReturn

from minion_wire.json_value import JsonValue

from minion_client._run.frames import FrameDecoder, Message, encode_frame
from minion_client._run.state import ProcessState
from minion_client._run.state_items import file_identity
from minion_client._run.verdict import (
    Verdict,
    is_job_failed,
    log_failure,
    run_task,
)
from minion_client.output import guard_output
from minion_client.tasks import REGISTRY, Job

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TASK_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that have no effect unless a task handles them."""
LOST_CONNECTION = 76  # EX_PROTOCOL of sysexits.h
"""Exit code of a process that cannot send the outcome of its job."""
_EXIT_SECONDS = 2.0
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s [job %(job)s]: %(message)s"


class LostChannelError(ConnectionError):
    """The socket was closed, or its descriptor now belongs to another file."""


class Channel:
    """The child's end of the socket."""

    def __init__(self, fd: int) -> None:
        # Programs that a task starts must not inherit the socket.
        os.set_inheritable(fd, False)  # noqa: FBT003 - the signature is os's
        self._socket = socket.socket(fileno=fd)
        self._identity = file_identity(fd)
        self._lock = threading.Lock()
        # No limit: the worker decides how large a job can be.
        self._decoder = FrameDecoder(sys.maxsize)
        self._received: deque[Message] = deque()
        os.register_at_fork(after_in_child=self._socket.close)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message.

        Raises:
            LostChannelError: A task has closed the socket.
        """
        frame = encode_frame(message)
        with self._lock:
            # The descriptor may belong to a file that a task opened.
            if file_identity(self._socket.fileno()) != self._identity:
                raise LostChannelError("the connection to the worker was closed")
            self._socket.sendall(frame)

    def receive(self) -> Message | None:
        """Wait for a message and return it; None if the other side has closed."""
        while not self._received:
            try:
                data = self._socket.recv(2**18)
            except ConnectionError:
                return None
            if not data:
                return None
            self._received.extend(self._decoder.feed(data))
        return self._received.popleft()


class ChildRunner:
    """Runs jobs one at a time."""

    def __init__(self, channel: Channel, *, max_json_bytes: int) -> None:
        self._channel = channel
        self._max_json_bytes = max_json_bytes
        self.job: Job | None = None

    def serve(self) -> None:
        """Run the jobs that arrive, until the other side closes or state cannot be restored."""
        for number in _TASK_SIGNALS:
            # Not SIG_IGN, which the programs that tasks start would inherit.
            signal.signal(number, _do_nothing)
        state = ProcessState()
        process = os.getpid()
        unrestored = ""
        while not unrestored and (message := self._channel.receive()) is not None:
            verdict = self._run(message)
            _flush()
            if os.getpid() != process:
                # The task forked, and this is the child: the connection is its parent's.
                os._exit(int(verdict.failed))
            unrestored = state.restore()
            self._channel.send({"kind": "end", **verdict._asdict(), "unrestored": unrestored})

    def _run(self, message: Message) -> Verdict:
        def note(notes: Mapping[str, JsonValue]) -> None:
            # With the id, since a thread of the task may send notes during the next job.
            self._channel.send({"kind": "note", "job_id": job.id, "notes": notes})

        def failed(error: BaseException) -> None:
            if not is_job_failed(error):
                log_failure(job.id, job.task, error)

        job = Job(**message, _note=note, _max_json_bytes=self._max_json_bytes)
        self.job = job
        # After this message, the job fails if the process dies.
        self._channel.send({"kind": "started", "job_id": job.id})
        function = REGISTRY[job.task].function if job.task in REGISTRY else _unknown_task
        # A copy: context variables and the decimal context that the task sets end with it.
        context = contextvars.copy_context()
        try:
            limit = self._max_json_bytes
            return context.run(run_task, function, job, limit=limit, failed=failed)
        finally:
            self.job = None


def main() -> None:
    """Run the program."""
    # Registered first, it runs last: it kills what tasks left running, even if the worker is gone.
    atexit.register(_end_group)
    with contextlib.suppress(Exception):
        # Fails without a standard error stream.
        faulthandler.enable()
    _reset_signals()
    channel = Channel(int(sys.argv[1]))
    setup = channel.receive()
    if setup is None:
        return
    runner = ChildRunner(channel, max_json_bytes=setup["max_json_bytes"])
    _die_with_parent(channel, runner, int(sys.argv[2]))
    sys.path[:] = setup["path"]
    _configure_output(runner, setup["log_level"])
    for module in setup["modules"]:
        try:
            importlib.import_module(module)
        # A module may raise anything, SystemExit too.
        except BaseException:  # noqa: BLE001
            text = f"cannot import tasks from {module!r}:\n{traceback.format_exc()}"
            channel.send({"kind": "error", "text": text.encode(errors="replace").decode()})
            sys.exit(1)
    try:
        channel.send({"kind": "ready"})
        runner.serve()
    except LostChannelError:
        _leave(LOST_CONNECTION)
    except ConnectionError:
        # The worker may close the connection at any time.
        return


def _configure_output(runner: ChildRunner, log_level: int) -> None:
    def name_job(record: logging.LogRecord) -> bool:
        if not hasattr(record, "job"):
            record.job = runner.job.id if runner.job is not None else "-"
        return True

    # Write line by line, without mixing lines of several processes.
    guard_output()
    handler = logging.StreamHandler()
    handler.addFilter(name_job)
    logging.basicConfig(level=log_level, format=_LOG_FORMAT, handlers=[handler])


def _die_with_parent(channel: Channel, runner: ChildRunner, parent: int) -> None:
    """Make this process end when its parent dies, even if the parent is killed.

    Linux does this, and the worker's guard (see `guard`) kills what the process started. A thread
    that watches the socket is the fallback.
    """
    poll = select.poll()
    poll.register(channel.fileno(), 0)

    def watch() -> None:
        poll.poll()
        if runner.job is None:
            # The main thread is ending for the same reason.
            time.sleep(_EXIT_SECONDS)
        _kill_group()

    threading.Thread(target=watch, name="minion-parent-watch", daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            # The parent died before the call.
            _kill_group()


def _reset_signals() -> None:
    """Make signals end this process, even those that the worker handles or blocks."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)


def _unknown_task(job: Job, *_args: object) -> NoReturn:
    raise LookupError(f"Unknown task in the worker process: {job.task}")


def _do_nothing(_signal: int, _frame: object) -> None:
    pass


def _kill_group() -> NoReturn:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _end_group() -> None:
    _flush()
    # Not in a process that a task forked.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


def _leave(code: int) -> NoReturn:
    _flush()
    # Not sys.exit: threads and exit handlers of a task could keep the process from ending.
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A closed or broken stream must not fail the job.
        with contextlib.suppress(Exception):
            stream.flush()


if __name__ == "__main__":
    main()
