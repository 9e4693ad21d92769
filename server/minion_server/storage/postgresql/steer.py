"""Retrying, cancelling and removing jobs."""

from __future__ import annotations

from typing import Any

import orjson

from minion_server.domain.errors import JobNotFound, RetriedTooOften
from minion_server.domain.job import JsonValue, RetryOptions
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.enqueue import Tell
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.tell import read_changes

_RETRY = """
    SELECT minion_server_retry($1, $2, $3::bigint, $4::int, $5::int, $6::float8, $7::float8,
      $8::bool, $9::bigint[], $10::int, $11::text)
"""
_CANCEL = "SELECT minion_server_cancel($1, $2, $3::bigint, $4::text)"
_REMOVE = "SELECT minion_server_remove($1, $2, $3::bigint, $4::int)"


async def retry_job(
    database: Database, tell: Tell, job_id: int, retries: int | None, options: RetryOptions
) -> bool:
    """Do what `Storage.retry_job` says."""
    delay = options.delay.total_seconds()
    return await _steer(
        database,
        tell,
        job_id,
        _RETRY,
        retries,
        options.attempts,
        delay,
        None if options.expire is None else options.expire.total_seconds(),
        options.lax,
        None if options.parents is None else list(options.parents),
        options.priority,
        options.queue,
        told={"due": delay} if delay > 0 else {},
    )


async def cancel_job(database: Database, tell: Tell, job_id: int, result: JsonValue) -> bool:
    """Do what `Storage.cancel_job` says."""
    return await _steer(database, tell, job_id, _CANCEL, to_json(result))


async def remove_job(database: Database, tell: Tell, job_id: int, retries: int | None) -> bool:
    """Do what `Storage.remove_job` says."""
    return await _steer(database, tell, job_id, _REMOVE, retries)


async def _steer(
    database: Database,
    tell: Tell,
    job_id: int,
    sql: str,
    *arguments: Any,
    told: dict[str, Any] | None = None,
) -> bool:
    answer = orjson.loads(await database.step(sql, job_id, *arguments))
    if answer.get("missing"):
        raise JobNotFound(job_id)
    if answer.get("exhausted"):
        raise RetriedTooOften(job_id)
    if not answer["accepted"]:
        return False
    changes = read_changes(answer)
    if told:
        read_changes(told, changes)
    changes.jobs.add(job_id)
    tell(changes)
    return True
