"""The steps of a repair, for all stores."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from minion_server.domain.errors import Exhausted, Unavailable
from minion_server.domain.maintenance import RepairReport

logger = logging.getLogger(__name__)

MAX_REPAIRED = 1_000
"""Jobs repaired in one transaction: bounds how long other writers wait."""


async def take_steps(**steps: Callable[[], Awaitable[int]]) -> RepairReport:
    """Take the steps of a repair in their order; a step that fails stops no other.

    Args:
        steps: By the field of the report that counts what they do.

    Raises:
        Unavailable, Exhausted: The database is out of reach or full.
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
