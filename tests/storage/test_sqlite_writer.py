"""Group commit: which operations share a commit, and which one a failure affects."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import apsw
import pytest
from minion_server.domain.errors import JobNotFound
from minion_server.storage.changes import Changes
from minion_server.storage.sqlite.writer import Transaction, Writer


@pytest.mark.parametrize(
    "bad", [(), (0,), (7,), (199,), (3, 4, 5, 150), range(0, 200, 2), range(200)]
)
async def test_an_operation_that_fails_costs_the_others_little(
    tmp_path: Path, bad: tuple[int, ...]
) -> None:
    connection = apsw.Connection(str(tmp_path / "test.db"))
    connection.execute("CREATE TABLE numbers (number INTEGER)")
    told: list[Changes] = []
    clock = itertools.count(1.0)
    writer = Writer(connection, lambda: next(clock), told.append)

    async def write(number: int) -> int:
        def run(txn: Transaction) -> int:
            txn.connection.execute("INSERT INTO numbers VALUES (?)", (number,))
            txn.changes.jobs.add(number)
            if number in bad:
                raise JobNotFound(number)
            return number

        return await writer.run(run)

    answers = await asyncio.gather(*map(write, range(200)), return_exceptions=True)
    await writer.close()
    good = [number for number in range(200) if number not in bad]
    assert [answer for answer in answers if isinstance(answer, int)] == good
    assert sum(isinstance(answer, JobNotFound) for answer in answers) == len(bad)
    assert [number for changes in told for number in sorted(changes.jobs)] == good
    reader = apsw.Connection(str(tmp_path / "test.db"))
    assert reader.execute("SELECT number FROM numbers").fetchall() == [(n,) for n in good]
    # The first operations may find the writer idle, and be committed by themselves.
    assert len(told) <= len(bad) + 5
