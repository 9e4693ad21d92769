"""The loop of a worker that claims jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minion_client._work.reporter import Reporter
from minion_client._work.slots import Claim, Slots
from minion_client._work.waiting import defect, first, pause
from minion_client.backoff import Backoff
from minion_client.source import ClaimedJob, JobSource, SourceRefused

_log = logging.getLogger(__name__)

_MAX_UNDELIVERED = 1_000


@dataclass(kw_only=True, eq=False)
class Claimer:
    """Claims jobs while slots are free for them.

    Attributes:
        source: Where the jobs come from.
        slots: The worker's slots.
        reporter: Claims pause while it has too many outcomes to deliver.
        queues: Queues to claim from.
        wait: Seconds that one claim waits for jobs.
        backoff: Delays after failed claims.
        claimed: Called with the jobs.
        failed: Called after each failed claim.
    """

    source: JobSource
    slots: Slots
    reporter: Reporter
    queues: Sequence[str]
    wait: float
    backoff: Backoff
    claimed: Callable[[Sequence[ClaimedJob]], None]
    failed: Callable[[], None]
    _claim: tuple[Claim, asyncio.Task[Sequence[ClaimedJob]]] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def claiming(self) -> bool:
        """True while a claim is in progress."""
        return self._claim is not None

    def stop(self) -> None:
        """Stop claiming; a claim in progress may still return jobs."""
        self._stopping.set()
        self.renew()

    def renew(self) -> None:
        """Replace the claim in progress by one for the current slots."""
        self._changed.set()
        # Only once: a second cancellation would not wait for jobs that the source has claimed.
        if self._claim is not None and not self._claim[1].cancelling():
            self._claim[1].cancel()

    def slot_freed(self) -> None:
        """Claim for a slot that has become free."""
        self._changed.set()
        if self._claim is not None and self.slots.outdates(self._claim[0]):
            self.renew()

    async def run(self) -> None:
        """Claim jobs until stopped.

        Raises:
            SourceRefused: The source refuses the claim.
        """
        failures = 0
        while not self._stopping.is_set():
            claim = self.slots.next_claim()
            if claim is not None and claim.min_priority is not None:
                # Short jobs may end in one turn of the loop, and free ordinary slots.
                await asyncio.sleep(0)
                if self._stopping.is_set():
                    return
                claim = self.slots.next_claim()
            if claim is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            if self.reporter.undelivered > _MAX_UNDELIVERED:
                await first(self.reporter.delivered(), self._stopping.wait())
                continue
            try:
                jobs = await self._dequeue(claim)
            except ValueError as error:
                raise SourceRefused.of(error) from error
            except Exception as error:  # noqa: BLE001 - the worker continues after any error
                failures += 1
                if failures == 1:
                    _log.warning(
                        "cannot take jobs: %s; trying again", error, exc_info=defect(error)
                    )
                self.failed()
                await pause(self.backoff.delay(failures), self._stopping)
                continue
            if failures:
                _log.info("Taking jobs again after %d failure(s)", failures)
                failures = 0
            self.claimed(jobs)

    async def _dequeue(self, claim: Claim) -> Sequence[ClaimedJob]:
        call = asyncio.ensure_future(
            self.source.dequeue(
                queues=self.queues,
                tasks=claim.tasks,
                min_priority=claim.min_priority,
                max_jobs=claim.max_jobs,
                wait=self.wait,
            )
        )
        self._claim = (claim, call)
        try:
            # Not awaited directly: `renew` must not look like a cancellation of this task.
            await asyncio.wait((call,))
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            self._claim = None
        if not call.cancelled():
            return call.result()
        if not call.cancelling():
            # Not by `renew`. Without an error, the next call would follow without a delay.
            raise ConnectionError("the source cancelled the call")
        return ()
