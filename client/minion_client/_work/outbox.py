"""Notes and outcomes of a worker, until the server has acknowledged them."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minion.v1 import worker_service_pb2 as pb
from minion_wire.sizes import MAX_PART_BYTES

from minion_client.source import JobKey

MAX_REPORT_BYTES = 1024 * 1024
"""Maximum size of a report, unless a single outcome is larger."""

# The path of a field in a report of one delivery, which means nothing to users.
_REPORT_PATH = re.compile(r"^report\.(outcomes|notes)\[0\]\.")


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery:
    """Notes or outcomes that are acknowledged together.

    Attributes:
        notes: The notes.
        outcomes: The outcomes.
        size: Size of its messages in bytes.
        accepted: For each outcome, whether it was accepted; ValueError if the server refuses.
        alone: Whether it needs a report of its own, so that a refusal applies to it alone.
    """

    notes: Sequence[pb.WorkRequest.Notes] = ()
    outcomes: Sequence[pb.WorkRequest.Outcome] = ()
    size: int
    accepted: asyncio.Future[Sequence[bool]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    alone: bool = False

    def refuse(self, error: Exception) -> None:
        """Fail the delivery, unless it is acknowledged."""
        if not self.accepted.done():
            self.accepted.set_exception(error)


@dataclass(slots=True, kw_only=True)
class _Report:
    """A report that was sent and is not acknowledged yet."""

    deliveries: Sequence[Delivery]
    sent: float


class Outbox:
    """Packs deliveries into reports, and reads the receipts; `clock` is a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[Delivery] = deque()
        self._reports: dict[int, _Report] = {}
        self._serial = 0

    @property
    def empty(self) -> bool:
        """True if everything is acknowledged."""
        return not self._waiting and not any(r.deliveries for r in self._reports.values())

    @property
    def oldest(self) -> float | None:
        """Time at which the first report without a receipt was sent."""
        return next((report.sent for report in self._reports.values()), None)

    def post(self, delivery: Delivery) -> None:
        """Add a delivery; raise ValueError if it is too large for a message."""
        check_size("", delivery.size)
        self._waiting.append(delivery)

    def next_report(self, *, even_empty: bool) -> pb.WorkRequest.Report | None:
        """Return the next report, which then counts as sent.

        The receipt of an empty report shows that the server is alive.
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

    def take(self, receipt: pb.WorkResponse.Receipt) -> list[JobKey]:
        """Process the receipt of a report, and return the keys of the jobs that it settles."""
        report = self._reports.pop(receipt.serial, None)
        if report is None:
            return []
        if receipt.HasField("refusal"):
            self._take_refusal(report.deliveries, receipt.refusal)
            return []
        settled: list[JobKey] = []
        accepted = list(receipt.accepted)
        for delivery in report.deliveries:
            count = len(delivery.outcomes)
            if not delivery.accepted.done():
                delivery.accepted.set_result(accepted[:count])
            del accepted[:count]
            settled.extend((o.job.id, o.job.retries) for o in delivery.outcomes)
        return settled

    def requeue(self) -> None:
        """Queue everything that is not acknowledged again, after its call has ended."""
        unanswered = [d for report in self._reports.values() for d in report.deliveries]
        self._reports.clear()
        self._waiting.extendleft(reversed(unanswered))

    def fail(self, error: Exception) -> None:
        """Fail all deliveries."""
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


def check_size(what: str, size: int) -> None:
    """Raise ValueError if a part of a request is larger than gRPC's default limit."""
    if size > MAX_PART_BYTES:
        raise ValueError(
            f"{what}too large: {size} bytes in a message, {MAX_PART_BYTES} are allowed"
        )
