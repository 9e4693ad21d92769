"""Run jobs of plain functions in threads of the worker's process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping

from minion_wire.json_value import JsonValue

from minion_client._run.job_run import JobRun
from minion_client._run.verdict import run_task
from minion_client.tasks import JobCancelled


class ThreadRun(JobRun):
    """A job that runs in its own thread, which cannot be stopped."""

    _loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        # A daemon: a thread that never ends must not keep the process from ending.
        thread = threading.Thread(target=self._run, name=f"minion-job-{self.job.id}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self.fail(f"Job could not be started: {error}")
        else:
            self._start_timer()

    def _run(self) -> None:
        process = os.getpid()
        verdict = run_task(
            self._task.function,
            self._handle(self._send_note),
            limit=self._limits.max_json_bytes,
            failed=self._log_failure,
        )
        if os.getpid() != process:
            # The task forked, and this is the child: it must not continue the worker.
            os._exit(int(verdict.failed))
        self._call(lambda: self.end(verdict))

    def _send_note(self, notes: Mapping[str, JsonValue]) -> None:
        if not self._call(lambda: self.note(notes)):
            raise JobCancelled("the worker has ended")

    def _call(self, callback: Callable[[], None]) -> bool:
        """Schedule a callback on the loop; return false if the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _interrupt(self) -> None:
        # A thread can only check the flag, which is set already.
        pass
