"""The child processes of a worker: started before they are needed, replaced when used up."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from minion_client._run.guard import Guard
from minion_client._run.process import (
    ChildProcess,
    ChildSettings,
    ChildStartError,
    Processes,
    ProcessExecution,
)
from minion_client._run.verdict import WORKER_GONE
from minion_client._work.waiting import defect
from minion_client.backoff import Backoff

_log = logging.getLogger(__name__)


class ProcessPool(Processes):
    """Child processes, each performing one job at a time.

    One more process than is busy is kept ready, up to `size`. A process is replaced after
    `recycle_after` jobs.

    Args:
        settings: What each process is started with.
        recycle_after: How many jobs a process performs at most.
        backoff: How long to wait before the next start, when processes keep dying.

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
            raise ValueError(f"recycle_after must be at least 1, not {recycle_after}")
        self._settings = settings
        self._recycle_after = recycle_after
        self._backoff = backoff or Backoff()
        self._size = 0
        self._idle: list[ChildProcess] = []
        self._busy: set[ChildProcess] = set()
        self._waiting: deque[ProcessExecution] = deque()
        self._starters: set[asyncio.Task[None]] = set()
        self._reapers: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._stopping = False
        self._guard = Guard()

    @property
    def idle(self) -> int:
        """How many processes are ready for a job."""
        return len(self._usable())

    @property
    def busy(self) -> int:
        """How many processes have a job."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a process."""
        return len(self._waiting)

    async def start(self, size: int) -> None:
        """Start the first process and wait until it is ready.

        Args:
            size: How many processes there may be.

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
        """Change how many processes there may be; those too many end when they are idle."""
        # One at least: a job may be waiting for it.
        self._size = max(size, 1)
        self._dispatch()

    async def stop(self) -> None:
        """End all processes, the busy ones at once, and wait until they have ended."""
        self._stopping = True
        for starter in self._starters:
            starter.cancel()
        await asyncio.gather(*self._starters, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft().fail(WORKER_GONE)
        for child in self._idle:
            child.close()
        for child in self._busy:
            child.kill()
        await asyncio.gather(*self._reapers)
        self._guard.stop()

    def acquire(self, execution: ProcessExecution) -> None:
        """Have the execution begin as soon as a process is free."""
        self._waiting.append(execution)
        self._dispatch()

    def put_back(self, execution: ProcessExecution) -> None:
        """Have the execution begin next; its process ended before it could."""
        if self._stopping:
            execution.fail(WORKER_GONE)
            return
        self._waiting.appendleft(execution)
        self._dispatch()

    def withdraw(self, execution: ProcessExecution) -> None:
        """Forget an execution that waits for a process."""
        if execution in self._waiting:
            self._waiting.remove(execution)

    def _dispatch(self) -> None:
        """Give waiting jobs to idle processes, and start processes until one more is idle."""
        while self._waiting and (idle := self._usable()):
            # The one that was last busy: its memory is warm.
            child = idle[-1]
            self._idle.remove(child)
            self._busy.add(child)
            self._waiting.popleft().begin(child)
        if self._stopping:
            return
        lasting = sum(child.performed < self._recycle_after for child in self._busy)
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
        # A process that has died is among the idle ones until it is reaped.
        return [child for child in self._idle if child.usable]

    def _started(self, starter: asyncio.Task[None]) -> None:
        self._starters.discard(starter)
        self._dispatch()

    async def _start_child(self) -> None:
        if self._failures:
            await asyncio.sleep(self._backoff.delay(self._failures))
        try:
            child = await ChildProcess.start(self._settings, self._release, self._guard)
        # A defect too: were it not counted, the next start would follow at once.
        except Exception as error:  # noqa: BLE001
            self._failures += 1
            _log.error(
                "a worker process did not start: %s", error, exc_info=defect(error, ChildStartError)
            )
            if not self._idle and not self._busy:
                self._fail_waiting(str(error))
        else:
            self._add(child)

    def _fail_waiting(self, why: str) -> None:
        """Fail the jobs that no process will come for, rather than let them hold their slots."""
        reason, _, _ = why.partition("\n")
        last = why.rstrip().rpartition("\n")[2]
        text = reason if last == reason else f"{reason} {last}"
        while self._waiting:
            self._waiting.popleft().fail(f"Job could not be started: {text}")

    def _add(self, child: ChildProcess) -> None:
        reaper = asyncio.get_running_loop().create_task(self._reap(child))
        self._reapers.add(reaper)
        reaper.add_done_callback(self._reapers.discard)
        self._idle.append(child)
        self._dispatch()

    def _release(self, child: ChildProcess) -> None:
        """Take back a process that has performed a job."""
        self._failures = 0
        self._busy.discard(child)
        if child.usable and child.performed < self._recycle_after and not self._stopping:
            self._idle.append(child)
        else:
            child.close()
        self._dispatch()

    async def _reap(self, child: ChildProcess) -> None:
        returncode = await child.exited
        self._busy.discard(child)
        if not child.began:
            self._failures += 1
        if child in self._idle:
            self._idle.remove(child)
            if not self._stopping:
                self._failures += 1
                _log.warning(
                    "worker process %d died while idle (return code %d)", child.pid, returncode
                )
        self._dispatch()
