"""Progress of long tasks, in notes that a page can draw a bar from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from minion_client import Job

_SECONDS: Final = 0.5


class Progress:
    """Notes `<things>_processed` and `total_<things>` of a job, at most twice a second."""

    def __init__(
        self, job: Job, things: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._job = job
        self._things = things
        self._clock = clock
        self._noted = -math.inf

    def __call__(self, done: int, total: int) -> None:
        """Note how many of how many are done.

        Raises:
            JobCancelled: The job was cancelled.
        """
        now = self._clock()
        if done < total and now - self._noted < _SECONDS:
            self._job.check()
            return
        self._noted = now
        self._job.note(**{f"{self._things}_processed": done, f"total_{self._things}": total})
