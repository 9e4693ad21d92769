"""Performs jobs whose task is a coroutine function, on the event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from minion_wire.json_value import JsonValue

from minion_client._run.contain import contained
from minion_client._run.job_run import Execution

_log = logging.getLogger(__name__)

# Abandoned ones are held here until they end: the loop itself refers to its tasks only weakly.
_stopping: set[asyncio.Task[None]] = set()


class CoroutineExecution(Execution):
    """A job that runs on the event loop; it is stopped by cancelling it."""

    __slots__ = ("_running",)

    _running: asyncio.Task[None]

    def start(self) -> None:
        """Begin."""
        self._start_timer()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            verdict = self._judge_return(await contained(self._call()))
        # SystemExit and KeyboardInterrupt would end the event loop; a job must not.
        except BaseException as error:  # noqa: BLE001
            verdict = self._judge_error(error)
        self._end(verdict)

    async def _call(self) -> JsonValue:
        handle = self._handle(self._note)
        called: Any = self._task.function(handle, *handle.args)
        return await called

    def _interrupt(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._bounds.cancel_grace, self._give_up)
        _stopping.add(self._running)
        self._running.add_done_callback(self._stopped)
        self._running.cancel()

    def _stopped(self, running: asyncio.Task[None]) -> None:
        _stopping.discard(running)
        # A coroutine that was cancelled before its first step has not come to say that it ended.
        self._fail(self._reason)

    def _give_up(self) -> None:
        job = self.job
        _log.warning("Job %d (%s) ignores that it was cancelled: abandoned", job.id, job.task)
        self._fail(self._reason)
