"""Tells a source what became of jobs, until it has taken it: notes first, then outcomes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import orjson

from minion_client.backoff import Backoff
from minion_client.json_value import MAX_JSON_BYTES, JsonValue
from minion_client.source import JobSource, Outcome
from minion_client.waiting import defect

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

JobKey = tuple[int, int]
"""Id and generation of a job."""


class GaveUp(Exception):
    """The source was out of reach when the worker had to end."""


class Reporter:
    """Delivers notes and outcomes.

    Outcomes go in batches: all that came up while the last batch was under way. The notes of a job
    are delivered in order, merged while they wait, and before its outcome.

    Args:
        source: Where they go.
        backoff: How long to wait before trying again when the source is out of reach.
        max_note_bytes: Bytes of JSON up to which waiting notes of a job are merged.
    """

    def __init__(
        self, source: JobSource, *, backoff: Backoff, max_note_bytes: int = MAX_JSON_BYTES
    ) -> None:
        self._source = source
        self._backoff = backoff
        self._max_note_bytes = max_note_bytes
        self._outcomes: list[Outcome] = []
        self._notes: dict[JobKey, deque[Mapping[str, JsonValue]]] = {}
        self._held: dict[JobKey, Outcome] = {}
        self._senders: set[asyncio.Task[None]] = set()
        self._undelivered = 0
        self._wake = asyncio.Event()
        self._delivered = asyncio.Event()
        self._delivered.set()
        self._hurry = asyncio.Event()

    @property
    def undelivered(self) -> int:
        """How many outcomes the source has not yet taken."""
        return self._undelivered

    def note(self, key: JobKey, notes: Mapping[str, JsonValue]) -> None:
        """Take notes to deliver; they must not be changed any more."""
        waiting = self._notes.get(key)
        if waiting is None:
            self._notes[key] = deque((notes,))
            sender = asyncio.get_running_loop().create_task(self._send_notes(key))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
            return
        if waiting:
            merged = {**waiting[-1], **notes}
            if len(orjson.dumps(merged)) <= self._max_note_bytes:
                waiting[-1] = merged
                return
        waiting.append(notes)

    def end(self, outcome: Outcome) -> None:
        """Take an outcome to deliver, after the notes of its job."""
        self._undelivered += 1
        self._delivered.clear()
        key = (outcome.job_id, outcome.retries)
        if key in self._notes:
            self._held[key] = outcome
        else:
            self._outcomes.append(outcome)
            self._wake.set()

    def forget(self, key: JobKey) -> None:
        """Drop the notes of a job that has moved on."""
        if key in self._notes:
            self._notes[key].clear()

    def hurry(self) -> None:
        """Try what is undelivered once more, and no longer."""
        self._hurry.set()

    async def delivered(self) -> None:
        """Wait until the source has taken all, or was given up."""
        await self._delivered.wait()

    async def run(self) -> None:
        """Deliver outcomes, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._outcomes = self._outcomes, []
                try:
                    await self._report(batch)
                except GaveUp as error:
                    _log.error("%d results are lost: %s", len(batch), error)
                self._undelivered -= len(batch)
                if not self._undelivered:
                    self._delivered.set()
        finally:
            for sender in self._senders:
                sender.cancel()

    async def _report(self, batch: list[Outcome]) -> None:
        try:
            accepted = await self._insist("report results", lambda: self._source.report(batch))
        except ValueError as error:
            await self._report_refused(batch, error)
            return
        for outcome, taken in zip(batch, accepted, strict=False):
            if not taken:
                _log.debug("Job %d had moved on from retry %d", outcome.job_id, outcome.retries)

    async def _report_refused(self, batch: list[Outcome], error: ValueError) -> None:
        """Find what the source refused in a batch, and fail that instead."""
        if len(batch) > 1:
            for outcome in batch:
                await self._report([outcome])
            return
        outcome = batch[0]
        _log.warning("The result of job %d was refused: %s", outcome.job_id, error)
        failed = replace(outcome, failed=True, result="Result was refused by the server")
        try:
            await self._insist("report results", lambda: self._source.report([failed]))
        except ValueError:
            _log.exception("Job %d can't be failed either", outcome.job_id)

    async def _send_notes(self, key: JobKey) -> None:
        waiting = self._notes[key]
        try:
            while waiting:
                await self._send_note(key[0], waiting.popleft())
        finally:
            del self._notes[key]
            outcome = self._held.pop(key, None)
            if outcome is not None:
                self._outcomes.append(outcome)
                self._wake.set()

    async def _send_note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        try:
            await self._insist("note", lambda: self._source.note(job_id, notes))
        except (ValueError, GaveUp) as error:
            _log.error("Notes of job %d are lost: %s", job_id, error)

    async def _insist(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat a call until the source has taken it.

        Raises:
            GaveUp: It did not, and there is no more time.
            ValueError: It refused.
        """
        failures = 0
        while True:
            try:
                answer = await call()
            except ValueError:
                raise
            except Exception as error:
                failures += 1
                if self._hurry.is_set():
                    raise GaveUp(f"{type(error).__name__}: {error}") from error
                if failures == 1:
                    _log.warning("Can't %s, trying again: %s", what, error, exc_info=defect(error))
                await self._pause(self._backoff.delay(failures))
            else:
                if failures:
                    _log.info("Could %s after %d failures", what, failures)
                return answer

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass
