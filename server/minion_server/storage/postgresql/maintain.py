"""Workers, locks, and keeping the queue in order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from minion_server.domain import limits
from minion_server.domain.errors import MinionError
from minion_server.domain.job import Outcome
from minion_server.domain.lock import LockRequest
from minion_server.domain.maintenance import (
    FOREGROUND_QUEUE,
    JOB_STUCK,
    WORKER_WENT_AWAY,
    RepairReport,
)
from minion_server.domain.policy import Backoff, Retention
from minion_server.domain.worker import MISSED_HEARTBEATS, Command, Registration, is_missing
from minion_server.storage.changes import Changes, Revocation
from minion_server.storage.inbox import read_inbox
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.enqueue import Tell
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.perform import end_jobs
from minion_server.storage.postgresql.tell import read_changes
from minion_server.storage.repairs import take_steps

logger = logging.getLogger(__name__)

MAX_REPAIRED = 1_000
"""Jobs repaired in one transaction: bounds how long their rows stay locked."""

# While the database was down, no worker that was there before could be heard.
_SILENT = """
    SELECT id, status, notified, extract(EPOCH FROM now() - CASE
        WHEN started < pg_postmaster_start_time()
        THEN greatest(notified, pg_postmaster_start_time()) ELSE notified
      END)::float8 AS silent_for
    FROM minion_workers WHERE notified < now() - $1::float8 * INTERVAL '1 second'
"""

_ABANDONED = """
    SELECT minion_server_abandoned($1::float8, $2::int, $3::text, $4::int, $5::float8)
"""

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


async def register_worker(database: Database, registration: Registration) -> int:
    """Do what `Storage.register_worker` says."""
    if registration.id is not None and registration.id > limits.MAX_WORKER_ID_STEP:
        highest = await database.ask(
            "SELECT greatest(m.worker, s.last_value)"
            " FROM minion_server_marks AS m, minion_workers_id_seq AS s"
        )
        limits.check_worker_id(registration.id, highest)
    worker_id: int = await database.ask(
        "SELECT minion_server_register($1::bigint, $2::text, $3::int, $4::text)",
        registration.id,
        registration.host,
        registration.pid,
        to_json(dict(registration.status)),
    )
    return worker_id


async def unregister_worker(database: Database, worker_id: int) -> None:
    """Do what `Storage.unregister_worker` says."""
    await database.ask("DELETE FROM minion_workers WHERE id = $1 RETURNING 1", worker_id)


async def broadcast(
    database: Database, tell: Tell, command: Command, worker_ids: Sequence[int]
) -> bool:
    """Do what `Storage.broadcast` says."""
    answer = orjson.loads(
        await database.step(
            "SELECT minion_server_broadcast($1, $2, $3::text, $4::bigint[])",
            to_json([command.command, *command.args]),
            list(worker_ids),
        )
    )
    changes = read_changes(answer)
    tell(changes)
    return bool(changes.commanded)


async def receive(database: Database, worker_id: int) -> list[Command]:
    """Do what `Storage.receive` says."""
    inbox = orjson.loads(
        await database.step(
            "SELECT minion_server_receive($1, $2, $3::bigint, $4::bigint)",
            worker_id,
            limits.MAX_COMMANDS_LENGTH,
        )
    )
    return read_inbox(inbox)


async def acquire_lock(database: Database, request: LockRequest) -> int | None:
    """Do what `Storage.acquire_lock` says."""
    taken: int | None = orjson.loads(
        await database.step(
            "SELECT minion_server_acquire_lock($1, $2, $3::text, $4::float8, $5::int)",
            request.name,
            request.duration.total_seconds(),
            request.limit,
        )
    )
    return taken


async def renew_lock(database: Database, name: str, lock_id: int, duration: timedelta) -> bool:
    """Do what `Storage.renew_lock` says."""
    renewed = await database.ask(
        """UPDATE minion_locks SET expires = now() + $3 WHERE id = $2 AND name = $1
           AND expires > now() RETURNING id""",
        name,
        lock_id,
        duration,
    )
    return renewed is not None


async def release_lock(database: Database, name: str, lock_id: int | None) -> bool:
    """Do what `Storage.release_lock` says."""
    released: str = await database.step(
        "SELECT minion_server_release_lock($1, $2, $3::text, $4::bigint)", name, lock_id
    )
    return released == "true"


async def stage_due(database: Database, tell: Tell) -> float | None:
    """Do what `Storage.stage_due` says."""
    answer = orjson.loads(await database.ask("SELECT minion_server_settled(10000)"))
    left = answer.pop("left")
    tell(read_changes(answer))
    due_in: float | None = await database.ask(
        """SELECT extract(EPOCH FROM least(
             (SELECT min(due) FROM minion_server_waiting WHERE stage = 'delayed'),
             (SELECT min(expires) FROM minion_server_waiting
               WHERE expires IS NOT NULL AND stage <> 'expired')) - now())::float8"""
    )
    undecided = await database.ask(
        "SELECT EXISTS (SELECT 1 FROM minion_server_waiting WHERE stage = 'undecided')"
    )
    if undecided:
        soon = 0.02 if left else 0.0
        due_in = soon if due_in is None else min(due_in, soon)
    return None if due_in is None else max(0.0, due_in)


async def reset(database: Database, tell: Tell, *, locks_only: bool) -> None:
    """Do what `Storage.reset` says."""
    if locks_only:
        await database.run(lambda connection: connection.execute("TRUNCATE minion_locks"))
        return
    changes = read_changes(orjson.loads(await database.ask("SELECT minion_server_reset()")))
    # Other servers are told by a trigger, to look themselves.
    changes.cleared = True
    tell(changes)


async def repair(
    database: Database, tell: Tell, retention: Retention, backoff: Backoff, heard_for: timedelta
) -> RepairReport:
    """Do what `Storage.repair` says, in transactions of bounded size."""
    report = await take_steps(
        missing_workers=lambda: _forget_missing(database, retention, heard_for),
        removed_jobs=lambda: _remove_old(database, tell, retention.remove_after.total_seconds()),
        expired_jobs=lambda: _exhaust(
            database, tell, "removed", "SELECT minion_server_remove_expired($1::int)", MAX_REPAIRED
        ),
        abandoned_jobs=lambda: _fail_abandoned(database, tell, retention, backoff, heard_for),
        stuck_jobs=lambda: _exhaust(
            database,
            tell,
            "failed",
            "SELECT minion_server_fail_stuck($1::float8, $2::text, $3::int)",
            retention.stuck_after.total_seconds(),
            to_json(JOB_STUCK),
            MAX_REPAIRED,
        ),
    )
    while await database.ask("SELECT minion_server_forget($1::int)", MAX_REPAIRED) >= MAX_REPAIRED:
        pass
    return report


async def _forget_missing(database: Database, retention: Retention, heard_for: timedelta) -> int:
    silent = await database.rows(_SILENT, retention.missing_after.total_seconds())
    missing = [
        row
        for row in silent
        if is_missing(
            orjson.loads(row["status"]),
            silent_for=row["silent_for"],
            missing_after=retention.missing_after,
            heard_for=heard_for,
        )
    ]
    # One that was heard of meanwhile stays.
    forgotten = await database.rows(
        """DELETE FROM minion_workers AS w USING unnest($1::bigint[], $2::timestamptz[])
             AS m (id, notified)
           WHERE w.id = m.id AND w.notified = m.notified RETURNING w.id""",
        [row["id"] for row in missing],
        [row["notified"] for row in missing],
    )
    return len(forgotten)


async def _exhaust(database: Database, tell: Tell, what: str, sql: str, *arguments: Any) -> int:
    total = 0
    while True:
        answer = orjson.loads(await database.ask(sql, *arguments))
        done = answer.get(what) or []
        _tell_step(tell, answer, done)
        total += len(done)
        if len(done) < MAX_REPAIRED and len(answer.get("expired", ())) < MAX_REPAIRED:
            return total


async def _remove_old(database: Database, tell: Tell, seconds: float) -> int:
    total, finished, job_id = 0, _LONG_AGO, 0
    while True:
        answer = orjson.loads(
            await database.ask(
                "SELECT minion_server_remove_old($1::float8, $2::timestamptz, $3::bigint, $4::int)",
                seconds,
                finished,
                job_id,
                MAX_REPAIRED,
            )
        )
        _tell_step(tell, answer, answer["removed"])
        total += len(answer["removed"])
        if "last" not in answer:
            return total
        finished, job_id = datetime.fromisoformat(answer["last"][0]), answer["last"][1]


async def _fail_abandoned(
    database: Database, tell: Tell, retention: Retention, backoff: Backoff, heard_for: timedelta
) -> int:
    total = 0
    while True:
        found = orjson.loads(
            await database.ask(
                _ABANDONED,
                retention.missing_after.total_seconds(),
                MISSED_HEARTBEATS,
                FOREGROUND_QUEUE,
                MAX_REPAIRED,
                heard_for.total_seconds(),
            )
        )
        if not found:
            return total
        outcomes = [
            Outcome(job_id=job_id, retries=retries, failed=True, result=WORKER_WENT_AWAY)
            for job_id, retries, _ in found
        ]
        accepted = await _end(database, tell, outcomes, backoff)
        # The worker may only have been silent: if it lives, it is to stop.
        revoked = [
            Revocation(worker_id=worker_id, job_id=job_id, retries=retries)
            for (job_id, retries, worker_id), ended in zip(found, accepted, strict=True)
            if ended
        ]
        tell(Changes(revoked=revoked))
        total += len(revoked)
        if len(found) < MAX_REPAIRED or not revoked:
            return total


async def _end(
    database: Database, tell: Tell, outcomes: Sequence[Outcome], backoff: Backoff
) -> Sequence[bool]:
    """End jobs in one step, or each by itself if that fails; log one that cannot be ended."""
    try:
        (accepted,) = await end_jobs(database, tell, backoff, [outcomes])
    except MinionError:
        raise
    except Exception:
        if len(outcomes) > 1:
            parts = [await _end(database, tell, [outcome], backoff) for outcome in outcomes]
            return [ended for part in parts for ended in part]
        logger.exception("cannot end job %d", outcomes[0].job_id)
        return [False]
    return accepted


def _tell_step(tell: Tell, answer: dict[str, Any], jobs: Sequence[int]) -> None:
    changes = read_changes(answer)
    changes.jobs.update(jobs)
    tell(changes)
