"""Deliver the notes and outcomes of jobs to a source."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson
from minion_wire.json_value import JsonValue, storable_text
from minion_wire.sizes import MAX_JOB_BYTES

from minion_client._work.waiting import is_outage, pause
from minion_client.backoff import Backoff
from minion_client.source import JobKey, JobSource, Outcome

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_MAX_DEFECTS = 8
"""Number of attempts with one outcome on which a source fails, outages not counted."""
_MAX_NAMED = 10
"""Maximum number of jobs in the log when results are lost together."""
_MAX_REFUSAL_LENGTH = 1_000


class GaveUp(Exception):
    """The source could not be reached before the worker had to end."""


class Reporter:
    """Delivers notes and outcomes.

    Outcomes are delivered in batches of all that arrived during the previous batch. The notes of a
    job are delivered in order, merged while they wait, and before its outcome.

    Args:
        source: Receives them.
        backoff: Delays between attempts while the source cannot be reached.
        max_note_bytes: Maximum size of merged notes as JSON, in bytes.
    """

    def __init__(
        self, source: JobSource, *, backoff: Backoff, max_note_bytes: int = MAX_JOB_BYTES
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
        self._no_retries = asyncio.Event()

    @property
    def undelivered(self) -> int:
        """Number of outcomes that are neither acknowledged nor lost."""
        return self._undelivered

    def note(self, key: JobKey, notes: Mapping[str, JsonValue]) -> None:
        """Deliver notes, which the caller must not change afterwards."""
        waiting = self._notes.get(key)
        if waiting is None:
            self._notes[key] = deque((notes,))
            self._spawn(self._send_notes(key))
            return
        if waiting:
            merged = {**waiting[-1], **notes}
            if len(orjson.dumps(merged)) <= self._max_note_bytes:
                waiting[-1] = merged
                return
        waiting.append(notes)

    def end(self, outcome: Outcome) -> None:
        """Deliver an outcome, after the notes of its job."""
        self._undelivered += 1
        self._delivered.clear()
        key = (outcome.job_id, outcome.retries)
        if key in self._notes:
            self._held[key] = outcome
        else:
            self._outcomes.append(outcome)
            self._wake.set()

    def forget(self, key: JobKey) -> None:
        """Drop the notes of a revoked job."""
        if key in self._notes:
            self._notes[key].clear()

    def end_retries(self) -> None:
        """Make one last attempt to deliver the rest, then drop it."""
        self._no_retries.set()

    async def delivered(self) -> None:
        """Wait until every outcome is acknowledged or lost."""
        await self._delivered.wait()

    async def run(self) -> None:
        """Deliver outcomes, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._outcomes = self._outcomes, []
                await self._report(batch)
        finally:
            for sender in self._senders:
                sender.cancel()

    async def _report(self, batch: Sequence[Outcome], *, max_defects: int = 1) -> None:
        """Report outcomes; find and settle those on which the source fails, each alone."""
        try:
            accepted = await self._persist(
                "report results", lambda: self._source.report(batch), max_defects=max_defects
            )
        except GaveUp as error:
            self._drop(batch, error)
        except Exception as error:  # noqa: BLE001 - one outcome must not delay the others
            if max_defects > 1:
                await self._replace(batch[0], error)
            elif len(batch) == 1:
                # In a task of its own: attempts after a defect take some time.
                self._spawn(self._settle(batch[0], error))
            else:
                middle = len(batch) // 2
                await self._report(batch[:middle])
                await self._report(batch[middle:])
        else:
            self._settled(batch, accepted)

    async def _settle(self, outcome: Outcome, error: Exception) -> None:
        """Fail the job of a refused outcome; report the outcome again after a defect."""
        if isinstance(error, ValueError):
            await self._replace(outcome, error)
        else:
            await self._report([outcome], max_defects=_MAX_DEFECTS)

    async def _replace(self, outcome: Outcome, error: Exception) -> None:
        """Fail a job whose outcome the source does not accept."""
        _log.warning("the result of job %d was refused: %s", outcome.job_id, error)
        failed = replace(outcome, failed=True, result=_refusal_text(error))
        try:
            accepted = await self._persist(
                "report results",
                lambda: self._source.report([failed]),
                max_defects=_MAX_DEFECTS,
            )
        except Exception as last:  # noqa: BLE001 - there is nothing else left to try
            self._drop([outcome], last)
        else:
            self._settled([outcome], accepted)

    def _drop(self, batch: Sequence[Outcome], error: Exception) -> None:
        what = error if isinstance(error, GaveUp) else f"{type(error).__name__}: {error}"
        shown = None if isinstance(error, (GaveUp, ValueError)) else error
        for outcome in batch[:_MAX_NAMED]:
            _log.error("could not deliver the result of job %d: %s", outcome.job_id, what)
        _log.error("could not deliver %d result(s): %s", len(batch), what, exc_info=shown)
        self._settled(batch, ())

    def _settled(self, batch: Sequence[Outcome], accepted: Sequence[bool]) -> None:
        for outcome, taken in zip(batch, accepted, strict=False):
            if not taken:
                _log.debug("job %d had moved on from retry %d", outcome.job_id, outcome.retries)
        self._undelivered -= len(batch)
        if not self._undelivered:
            self._delivered.set()

    def _spawn(self, sending: Coroutine[None, None, None]) -> None:
        sender = asyncio.get_running_loop().create_task(sending)
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

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
            await self._persist(
                "note", lambda: self._source.note(job_id, notes), max_defects=_MAX_DEFECTS
            )
        except ValueError as error:
            if len(notes) > 1:
                # They may have been merged, and only some of them are refused.
                for name, value in notes.items():
                    await self._send_note(job_id, {name: value})
                return
            name = next(iter(notes), "")
            _log.error("could not deliver the note %.100r of job %d: %s", name, job_id, error)
        except GaveUp as error:
            _log.error("could not deliver notes of job %d: %s", job_id, error)
        except Exception:  # noqa: BLE001 - the outcome must still be delivered
            _log.exception("could not deliver notes of job %d", job_id)

    async def _persist(
        self, what: str, call: Callable[[], Awaitable[_T]], *, max_defects: int
    ) -> _T:
        """Repeat a call until it succeeds.

        Raises:
            GaveUp: The source cannot be reached, and the worker has to end.
            ValueError: The source refused.
            Exception: The source failed `max_defects` times.
        """
        outages = defects = 0
        while True:
            try:
                response = await call()
            except ValueError:
                raise
            except Exception as error:
                if is_outage(error):
                    outages += 1
                    if self._no_retries.is_set():
                        raise GaveUp(f"{type(error).__name__}: {error}") from error
                    if outages == 1:
                        _log.warning("cannot %s: %s; trying again", what, error)
                else:
                    defects += 1
                    if defects == max_defects or self._no_retries.is_set():
                        raise
                await pause(self._backoff.delay(outages or defects), self._no_retries)
            else:
                if outages:
                    _log.info("could %s after %d failure(s)", what, outages)
                return response


def _refusal_text(error: Exception) -> str:
    # ASCII: the reason may be a character that the database cannot store.
    text = f"Result was refused: {error}".encode("ascii", "backslashreplace").decode()
    return storable_text(text, limit=_MAX_REFUSAL_LENGTH).replace("\N{HORIZONTAL ELLIPSIS}", "...")
