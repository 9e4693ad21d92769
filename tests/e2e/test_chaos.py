"""Four nodes on one PostgreSQL while nodes, sessions, networks and PostgreSQL itself break.

MINION_CHAOS=JOBS,SECONDS runs at another size, and MINION_CHAOS_SEED from another seed.
"""

from __future__ import annotations

import os
from pathlib import Path

from support.chaos import MAX_CONNECTIONS, Chaos, Size
from support.postgresql import serving

SMALL = Size(jobs=1_500, seconds=15.0, missing_after=3.0)


async def test_every_acknowledged_job_ends_once_whatever_breaks(tmp_path: Path) -> None:
    size = SMALL
    if asked := os.environ.get("MINION_CHAOS"):
        jobs, seconds = asked.split(",")
        size = Size(jobs=int(jobs), seconds=float(seconds), missing_after=5.0, drain=300.0)
    seed = int(os.environ.get("MINION_CHAOS_SEED", "1"))
    with serving(max_connections=str(MAX_CONNECTIONS)) as server:
        chaos = Chaos(tmp_path, server, size, seed)
        await chaos.run()
    assert chaos.records.wrong == []
    assert len(chaos.records.acknowledged) == size.jobs
