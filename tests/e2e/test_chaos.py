"""Four nodes on one PostgreSQL while nodes, sessions, networks and PostgreSQL itself break.

MINION_CHAOS=JOBS,SECONDS,SEED sets the size and the seed; with `--log-cli-level
info` it logs what it breaks.
"""

from __future__ import annotations

import os
from pathlib import Path

from support.chaos import MAX_CONNECTIONS, Size, run_chaos
from support.postgresql import serving

SMALL = Size(jobs=1_500, seconds=15.0, missing_after=3.0)


async def test_every_acknowledged_job_ends_once_whatever_breaks(tmp_path: Path) -> None:
    size, seed = SMALL, "1"
    if asked := os.environ.get("MINION_CHAOS"):
        jobs, seconds, seed = asked.split(",")
        size = Size(
            jobs=int(jobs), seconds=float(seconds), missing_after=5.0, outage=25.0, drain=300.0
        )
    with serving(max_connections=str(MAX_CONNECTIONS)) as server:
        records = await run_chaos(tmp_path, server, size, int(seed))
    assert records.wrong == []
    assert len(records.acknowledged) == size.jobs
