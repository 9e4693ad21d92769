"""Performs jobs whose task is a plain function that must share the worker's process, in threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping

from minion_wire.json_value import JsonValue

from minion_client._run.job_run import Execution
from minion_client.tasks import JobCancelled, call


class ThreadExecution(Execution):
    """A job that runs in a thread of its own; it can only be asked to stop."""

    __slots__ = ("_loop",)

    _loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a thread that never ends must not keep the process from ending.
        thread = threading.Thread(target=self._run, name=f"minion-job-{self.job.id}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._fail(f"Job could not be started: {error}")
        else:
            self._start_timer()

    def _run(self) -> None:
        process = os.getpid()
        try:
            handle = self._handle(self._send_note)
            verdict = self._judge_return(call(self._task.function, handle))
        # SystemExit would end the thread without an outcome.
        except BaseException as error:  # noqa: BLE001
            verdict = self._judge_error(error)
        if os.getpid() != process:
            # The task forked, and this is what it forked: it has no business here.
            os._exit(int(verdict.failed))
        self._call(lambda: self._end(verdict))

    def _send_note(self, notes: Mapping[str, JsonValue]) -> None:
        if not self._call(lambda: self._note(notes)):
            raise JobCancelled("the worker has ended")

    def _call(self, callback: Callable[[], None]) -> bool:
        """Run on the loop, after what was sent before; false if the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _interrupt(self) -> None:
        """Nothing but the flag, which is set already, reaches a thread."""
