"""The child processes of a worker, and the runs of jobs in them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque

from minion_wire.failure import WORKER_WENT_AWAY

from minion_client._run.frames import encode_frame
from minion_client._run.guard import Guard
from minion_client._run.job_run import JobObserver, JobRun, TaskLimits
from minion_client._run.process import ChildProcess, ChildSettings, ChildStartError
from minion_client._run.verdict import exit_words
from minion_client.backoff import Backoff
from minion_client.source import ClaimedJob
from minion_client.tasks import Task, job_fields

_log = logging.getLogger(__name__)

_MAX_STARTS = 3
"""Maximum number of processes that a job is given to, if they end before it starts."""


class ProcessPool:
    """Child processes, each of which runs one job at a time.

    Besides the busy processes, one idle process is kept ready, up to the size.

    Args:
        settings: Settings of each process.
        recycle_after: Number of jobs after which a process is replaced.
        backoff: Delays between starts while processes keep dying.

    Raises:
        ValueError: `recycle_after` is less than 1.
    """

    def __init__(
        self,
        settings: ChildSettings,
        *,
        recycle_after: int = 100,
        backoff: Backoff | None = None,
    ) -> None:
        if recycle_after < 1:
            raise ValueError(f"recycle_after: expected at least 1, got {recycle_after}")
        self._settings = settings
        self._recycle_after = recycle_after
        self._backoff = backoff or Backoff()
        self._size = 0
        self._idle: list[ChildProcess] = []
        self._busy: set[ChildProcess] = set()
        self._waiting: deque[ProcessRun] = deque()
        self._starters: set[asyncio.Task[None]] = set()
        self._reapers: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._stopping = False
        self._guard = Guard()

    @property
    def idle(self) -> int:
        """Number of processes that are ready for a job."""
        return len(self._usable())

    @property
    def busy(self) -> int:
        """Number of processes that have a job."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for a process."""
        return len(self._waiting)

    async def start(self, size: int) -> None:
        """Start the first of up to `size` processes, and wait until it is ready.

        Raises:
            ChildStartError: It could not import the tasks, or could not be started at all.
        """
        self._size = size
        self._stopping = False
        self._guard.start()
        try:
            self._add(await ChildProcess.start(self._settings, self._release, self._guard))
        except BaseException:
            self._guard.stop()
            raise

    def resize(self, size: int) -> None:
        """Change the number of processes; surplus ones end when they are idle."""
        # At least one: a job may be waiting for it.
        self._size = max(size, 1)
        self._dispatch()

    async def stop(self) -> None:
        """Stop all processes, kill the busy ones, and wait until all have ended."""
        self._stopping = True
        for starter in self._starters:
            starter.cancel()
        await asyncio.gather(*self._starters, return_exceptions=True)
        self._fail_waiting(WORKER_WENT_AWAY)
        for child in self._idle:
            child.close()
        for child in self._busy:
            child.kill()
        await asyncio.gather(*self._reapers)
        self._guard.stop()

    def acquire(self, run: ProcessRun) -> None:
        """Start a run in a process as soon as one is free."""
        self._waiting.append(run)
        self._dispatch()

    def put_back(self, run: ProcessRun) -> None:
        """Start a run before all waiting ones: its process ended before the job started."""
        self._waiting.appendleft(run)
        if self._stopping:
            self._fail_waiting(WORKER_WENT_AWAY)
        self._dispatch()

    def withdraw(self, run: ProcessRun) -> None:
        """Remove a run that waits for a process."""
        if run in self._waiting:
            self._waiting.remove(run)

    def _dispatch(self) -> None:
        """Give waiting jobs to idle processes, and start processes until one is idle."""
        while self._waiting and (idle := self._usable()):
            # The most recently used one: its memory is warm.
            child = idle[-1]
            self._idle.remove(child)
            self._busy.add(child)
            self._waiting.popleft().begin(child)
        if self._stopping:
            return
        lasting = sum(child.runs < self._recycle_after for child in self._busy)
        room = self._size - self.idle - lasting - len(self._starters)
        wanted = len(self._waiting) + 1 - self.idle - len(self._starters)
        for _ in range(min(room, wanted)):
            starter = asyncio.get_running_loop().create_task(self._start_child())
            self._starters.add(starter)
            starter.add_done_callback(self._started)
        # After a resize there may be too many.
        while self._idle and len(self._idle) + lasting > self._size:
            self._idle.pop(0).close()

    def _usable(self) -> list[ChildProcess]:
        # A dead process stays in the list until it is reaped.
        return [child for child in self._idle if child.usable]

    def _started(self, starter: asyncio.Task[None]) -> None:
        self._starters.discard(starter)
        self._dispatch()

    async def _start_child(self) -> None:
        if self._failures:
            await asyncio.sleep(self._backoff.delay(self._failures))
        try:
            child = await ChildProcess.start(self._settings, self._release, self._guard)
        # Defects too: without a count, the next start would follow without a delay.
        except Exception as error:  # noqa: BLE001
            self._failures += 1
            shown = None if isinstance(error, ChildStartError) else error
            _log.error("a worker process did not start: %s", error, exc_info=shown)
            if not self._idle and not self._busy:
                # These jobs must not hold their slots while there is no process.
                first, _, _ = str(error).partition("\n")
                last = str(error).rstrip().rpartition("\n")[2]
                text = first if last == first else f"{first} {last}"
                self._fail_waiting(f"Job could not be started: {text}")
        else:
            self._add(child)

    def _fail_waiting(self, result: str) -> None:
        while self._waiting:
            self._waiting.popleft().fail(result)

    def _add(self, child: ChildProcess) -> None:
        reaper = asyncio.get_running_loop().create_task(self._reap(child))
        self._reapers.add(reaper)
        reaper.add_done_callback(self._reapers.discard)
        self._idle.append(child)
        self._dispatch()

    def _release(self, child: ChildProcess) -> None:
        """Return a process to the pool after its job has ended."""
        self._failures = 0
        self._busy.discard(child)
        if child.usable and child.runs < self._recycle_after and not self._stopping:
            self._idle.append(child)
        else:
            child.close()
        self._dispatch()

    async def _reap(self, child: ChildProcess) -> None:
        returncode = await child.exited
        self._busy.discard(child)
        if not child.job_started:
            self._failures += 1
        if child in self._idle:
            self._idle.remove(child)
            if not self._stopping:
                self._failures += 1
                _log.warning(
                    "worker process %d died while idle (return code %d)", child.pid, returncode
                )
        self._dispatch()


class ProcessRun(JobRun):
    """A job that runs in a child process; it is stopped by killing the process."""

    def __init__(
        self,
        job: ClaimedJob,
        task: Task,
        observer: JobObserver,
        limits: TaskLimits,
        pool: ProcessPool,
    ) -> None:
        super().__init__(job, task, observer, limits)
        self._pool = pool
        self._child: ChildProcess | None = None
        self._frame = b""
        self._starts = 0

    def start(self) -> None:
        try:
            self._frame = encode_frame(job_fields(self.job))
        except TypeError as error:
            self.fail(f"Job could not be sent to a worker process: {error}")
        else:
            self._pool.acquire(self)

    def begin(self, child: ChildProcess) -> None:
        """Run in a process."""
        self._child = child
        self._starts += 1
        self._start_timer()
        child.run(self, self._frame)

    def send_signal(self, number: signal.Signals) -> None:
        if self._child is None or number == signal.SIGKILL:
            super().send_signal(number)
        else:
            self._child.send_signal(number)

    def started(self) -> None:
        # The job will not be sent again.
        self._frame = b""

    def lost(self, returncode: int) -> None:
        self._child = None
        self._stop_timer()
        if self._reason is not None:
            self.fail(self._reason)
        elif self._starts < _MAX_STARTS:
            self._pool.put_back(self)
        else:
            self.fail(
                f"Job could not be started: {_MAX_STARTS} worker processes ended before it started,"
                f" the last one with {exit_words(returncode)}"
            )

    def _interrupt(self) -> None:
        if self._child is not None:
            self._child.kill()
        else:
            self._pool.withdraw(self)
            self.fail(self._reason)
