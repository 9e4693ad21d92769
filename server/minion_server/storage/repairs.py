"""The steps of a repair, for all stores."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from minion_server.domain.errors import Exhausted, Unavailable
from minion_server.domain.maintenance import RepairReport

logger = logging.getLogger(__name__)

MAX_REPAIRED = 1_000
"""Jobs repaired in one transaction, which bounds how long other writers wait."""


async def run_steps(**steps: Callable[[], Awaitable[int]]) -> RepairReport:
    """Run the steps of a repair in order, even if one fails, and return their report.

    Args:
        steps: The steps, by the names of the report's fields, each of which returns its count.

    Raises:
        Unavailable, Exhausted: The database is unreachable or full.
    """
    counts: dict[str, int] = {}
    for name, step in steps.items():
        try:
            counts[name] = await step()
        except (Unavailable, Exhausted):
            raise
        except Exception:
            logger.exception("a step of the repair failed: %s", name)
    return RepairReport(**counts)
