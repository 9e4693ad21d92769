"""What the repairs of all stores have in common."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from minion_server.domain.errors import MinionError
from minion_server.domain.maintenance import RepairReport

logger = logging.getLogger(__name__)


async def take_steps(**steps: Callable[[], Awaitable[int]]) -> RepairReport:
    """Take the steps of a repair in their order; a row that one stumbles over stops no other.

    Args:
        steps: By the field of the report that counts what they do.

    Raises:
        MinionError: The database is out of reach or full.
    """
    counts: dict[str, int] = {}
    for name, step in steps.items():
        try:
            counts[name] = await step()
        except MinionError:
            raise
        except Exception:
            logger.exception("a step of the repair failed: %s", name)
    return RepairReport(**counts)
