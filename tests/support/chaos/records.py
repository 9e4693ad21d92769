"""The parameters and the records of a run."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

QUEUES = ("default", "second", "third")
CANCELLED = "cancelled by chaos"


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a run.

    Attributes:
        jobs: Jobs to enqueue.
        seconds: Time in which they are enqueued and things break.
        missing_after: Seconds after which a silent worker is missing.
        outage: Maximum seconds that PostgreSQL is down when it is restarted.
        drain: Seconds that all remaining jobs may take.
    """

    jobs: int
    seconds: float
    missing_after: float
    outage: float = 2.0
    drain: float = 120.0


@dataclass
class Records:
    """The requests of clients, and the responses.

    Attributes:
        requests: Every requested job, by its request id.
        acknowledged: Ids of jobs, by request id.
        finals: State and generation of each job that was seen in a final state.
        cancelled: Cancelled jobs, and whether that was accepted; None if unknown.
        retried: Jobs that the run itself retried, which may leave their final state.
        answers: Number of responses of each status; 0 is for broken calls.
        wrong: Errors found.
    """

    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    finals: dict[int, str] = field(default_factory=dict)
    cancelled: dict[int, bool | None] = field(default_factory=dict)
    retried: set[int] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note_wrong(self, what: str) -> None:
        logger.error("WRONG: %s", what)
        self.wrong.append(what)

    def seen(self, job_id: int, state: str, retries: int) -> None:
        """Record the state of a job."""
        now = f"{state} {retries}"
        if job_id in self.retried:
            return
        if self.finals.get(job_id, now) != now:
            self.note_wrong(f"job {job_id} was {self.finals[job_id]} and is {now}")
        if state in {"finished", "failed"}:
            self.finals[job_id] = now
