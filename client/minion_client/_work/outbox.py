"""What a worker has to tell a server, until the server has said that it took it."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minion.v1 import worker_service_pb2 as pb

MAX_REPORT_BYTES = 1024 * 1024
"""Bytes that one report has at most, unless a single outcome has more."""
MAX_MESSAGE_BYTES = 4 * 1024 * 1024 - 4_096
"""Bytes of a request that gRPC servers take by default, but for what is around a report."""

# Where in a report of one the refused thing is, which says nothing to the worker's user.
_REPORT_PATH = re.compile(r"^report\.(outcomes|notes)\[0\]\.")


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery:
    """Notes or outcomes that are answered together.

    Attributes:
        notes: The notes.
        outcomes: The outcomes.
        size: Bytes of all that.
        taken: For each outcome, whether it was accepted; ValueError if the server refuses.
        alone: Whether it must have a report of its own, so that a refusal says what was refused.
    """

    notes: Sequence[pb.WorkRequest.Notes] = ()
    outcomes: Sequence[pb.WorkRequest.Outcome] = ()
    size: int
    taken: asyncio.Future[Sequence[bool]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    alone: bool = False

    def answer(self, accepted: Sequence[bool]) -> None:
        """Tell whoever waits what was accepted."""
        if not self.taken.done():
            self.taken.set_result(accepted)

    def refuse(self, error: Exception) -> None:
        """Tell whoever waits that it will not be taken."""
        if not self.taken.done():
            self.taken.set_exception(error)


@dataclass(slots=True, kw_only=True)
class _Report:
    """A report that was sent and is not answered yet."""

    deliveries: Sequence[Delivery]
    sent: float


class Outbox:
    """Packs deliveries into reports, and takes the receipts.

    Args:
        clock: Answers the seconds of a steady clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[Delivery] = deque()
        self._reports: dict[int, _Report] = {}
        self._serial = 0

    @property
    def empty(self) -> bool:
        """Whether all has been taken."""
        return not self._waiting and not any(r.deliveries for r in self._reports.values())

    @property
    def oldest(self) -> float | None:
        """When the first of the reports that are not answered was sent."""
        for report in self._reports.values():
            return report.sent
        return None

    def post(self, delivery: Delivery) -> None:
        """Take a delivery.

        Raises:
            ValueError: No server would take it.
        """
        if delivery.size > MAX_MESSAGE_BYTES:
            raise ValueError(
                f"too large: {delivery.size} bytes in a message, {MAX_MESSAGE_BYTES} are allowed"
            )
        self._waiting.append(delivery)

    def next_report(self, *, even_empty: bool) -> pb.WorkRequest.Report | None:
        """Answer what to send next, which counts as sent.

        Args:
            even_empty: Whether to answer a report of nothing, whose receipt tells that the server
                listens, when there is nothing to report.
        """
        if not self._waiting and not even_empty:
            return None
        self._serial += 1
        report = pb.WorkRequest.Report(serial=self._serial)
        packed: list[Delivery] = []
        size = 0
        while self._waiting:
            delivery = self._waiting[0]
            size += delivery.size
            if packed and (delivery.alone or packed[0].alone or size > MAX_REPORT_BYTES):
                break
            packed.append(self._waiting.popleft())
            report.notes.extend(delivery.notes)
            report.outcomes.extend(delivery.outcomes)
        self._reports[self._serial] = _Report(deliveries=packed, sent=self._clock())
        return report

    def take(self, receipt: pb.WorkResponse.Receipt) -> list[tuple[int, int]]:
        """Take the answer to a report, and answer the jobs, by id and retries, that it settles."""
        report = self._reports.pop(receipt.serial, None)
        if report is None:
            return []
        if receipt.HasField("refusal"):
            self._take_refusal(report.deliveries, receipt.refusal)
            return []
        settled: list[tuple[int, int]] = []
        accepted = list(receipt.accepted)
        for delivery in report.deliveries:
            count = len(delivery.outcomes)
            delivery.answer(accepted[:count])
            del accepted[:count]
            settled.extend((o.job.id, o.job.retries) for o in delivery.outcomes)
        return settled

    def requeue(self) -> None:
        """Have sent again what was not answered: the call it was sent in is over."""
        unanswered = [d for report in self._reports.values() for d in report.deliveries]
        self._reports.clear()
        self._waiting.extendleft(reversed(unanswered))

    def fail(self, error: Exception) -> None:
        """Give up on everything."""
        self.requeue()
        while self._waiting:
            self._waiting.popleft().refuse(error)

    def _take_refusal(self, deliveries: Sequence[Delivery], refusal: str) -> None:
        if len(deliveries) == 1:
            deliveries[0].refuse(ValueError(_REPORT_PATH.sub("", refusal)))
            return
        for delivery in deliveries:
            delivery.alone = True
        self._waiting.extendleft(reversed(deliveries))
