"""Run jobs of coroutine functions on the event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from minion_wire.json_value import JsonValue

from minion_client._run.contain import contained
from minion_client._run.job_run import JobRun
from minion_client._run.verdict import judge_error, judge_return

_log = logging.getLogger(__name__)

# References to stopped tasks until they end: those of the loop are weak.
_stopping: set[asyncio.Task[None]] = set()


class CoroutineRun(JobRun):
    """A job that runs on the event loop; it is stopped by cancelling its asyncio task."""

    _running: asyncio.Task[None]

    def start(self) -> None:
        self._start_timer()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        limit = self._limits.max_json_bytes
        try:
            verdict = judge_return(await contained(self._call()), limit=limit)
        # Also SystemExit and KeyboardInterrupt, which would end the event loop.
        except BaseException as error:  # noqa: BLE001
            self._log_failure(error)
            verdict = judge_error(error, limit=limit)
        self.end(verdict)

    async def _call(self) -> JsonValue:
        job = self._handle(self.note)
        called: Any = self._task.function(job, *job.args)
        return await called

    def _interrupt(self) -> None:
        self._stop_timer()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.cancel_grace, self._give_up)
        _stopping.add(self._running)
        self._running.add_done_callback(self._stopped)
        self._running.cancel()

    def _stopped(self, running: asyncio.Task[None]) -> None:
        _stopping.discard(running)
        # A coroutine that is cancelled before its first step does not end the run itself.
        self.fail(self._reason)

    def _give_up(self) -> None:
        job = self.job
        _log.warning("Job %d (%s) ignored its cancellation and is abandoned", job.id, job.task)
        self.fail(self._reason)
