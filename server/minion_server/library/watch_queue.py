"""Enqueues uploads, and holds one lock among all servers that watch a folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from minion_client import JobState, MinionError, NewJob

from minion_server.domain.job import REQUEST_ID_LIFETIME
from minion_server.library.watch_record import Claim

if TYPE_CHECKING:
    from minion_client import AsyncClient, JobInfo

TASK: Final = "handle_upload"
NOTE: Final = "watch"
"""Key of the note that each job of the watcher has: its request id."""
ATTEMPTS: Final = 5
"""Attempts of an upload: a full disk, or a killed server, ends one."""
MAX_WAITING_JOBS: Final = 200
"""Uploads that wait in the queue at most; the others wait in the folder."""

LOCK_SECONDS: Final = 30.0
RENEW_SECONDS: Final = 10.0
_RELEASE_SECONDS: Final = 2.0
_LONGEST_PATH_IN_NAME: Final = 200

_SAFE_AGE: Final = REQUEST_ID_LIFETIME / 2
"""Age of a claim whose request id the queue knows for certain, if its job was enqueued."""
_CLOCK_ERROR: Final = timedelta(hours=1)
"""The largest difference between the clocks of the queue and of this machine."""


class UploadQueue:
    """The uploads of the watcher in the queue; all methods raise the client's MinionError.

    Args:
        client: The queue.
        queue: Name of the queue that uploads are put into.
    """

    def __init__(self, client: AsyncClient, queue: str) -> None:
        self._client = client
        self._queue = queue

    async def room(self) -> int:
        """Return how many more uploads may be enqueued."""
        room = MAX_WAITING_JOBS
        waiting = self._list(states=[JobState.INACTIVE], tasks=[TASK], notes=[NOTE])
        async with waiting as jobs:
            async for _ in jobs:
                room -= 1
                if not room:
                    break
        return room

    async def send(self, claims: Sequence[Claim]) -> dict[str, int]:
        """Enqueue each claim that is not in the queue, and return the jobs' ids by request ids."""
        jobs = await self._find_old(claims)
        rest = [claim for claim in claims if claim.request_id not in jobs]
        ids = await self._client.enqueue_many(
            NewJob(
                task=TASK,
                args=[claim.path],
                queue=self._queue,
                attempts=ATTEMPTS,
                notes={NOTE: claim.request_id},
                request_id=claim.request_id,
            )
            for claim in rest
        )
        return jobs | {claim.request_id: job for claim, job in zip(rest, ids, strict=True)}

    async def unread(self, jobs: Collection[int]) -> set[int]:
        """Return which uploads have not read their files: they wait, run or have failed at it.

        Those that are removed had finished.
        """
        if not jobs:
            return set()
        async with self._list(ids=list(jobs)) as found:
            return {job.id async for job in found if not _has_read(job)}

    async def _find_old(self, claims: Sequence[Claim]) -> dict[str, int]:
        """Return the jobs of claims whose request ids the queue may have forgotten."""
        safe = time.time() - _SAFE_AGE.total_seconds()
        old = {claim.request_id for claim in claims if claim.claimed < safe}
        if not old:
            return {}
        first = min(claim.claimed for claim in claims)
        since = datetime.fromtimestamp(first, UTC) - _CLOCK_ERROR
        jobs: dict[str, int] = {}
        async with self._list(tasks=[TASK], notes=[NOTE]) as found:
            async for job in found:
                request_id = job.notes.get(NOTE)
                if isinstance(request_id, str) and request_id in old:
                    jobs[request_id] = job.id
                if len(jobs) == len(old) or job.created < since:
                    break
        return jobs

    def _list(self, **filters: Any) -> aclosing[Any]:
        jobs: Any = self._client.list_jobs(**filters)
        return aclosing(jobs)


def _has_read(job: JobInfo) -> bool:
    # `handle_upload` returns an id if, and only if, it has read the file.
    return (
        job.state is JobState.FINISHED
        and isinstance(job.result, dict)
        and bool(job.result.get("id"))
    )


class FolderLock:
    """The lock of the server that watches a folder; it expires when that server is killed."""

    def __init__(self, client: AsyncClient, folder: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._id: int | None = None
        self._renewed = 0.0
        if len(folder) > _LONGEST_PATH_IN_NAME:
            folder = hashlib.sha256(folder.encode()).hexdigest()
        self._name = f"watch {folder}"

    async def hold(self) -> bool:
        """Acquire the lock, or renew it when that is due; return whether it is held.

        Raises:
            MinionError: The queue cannot be reached.
        """
        now = self._clock()
        if self._id is not None and now - self._renewed < RENEW_SECONDS:
            return True
        if self._id is None:
            self._id = await self._client.acquire_lock(self._name, LOCK_SECONDS)
        elif not await self._client.renew_lock(self._name, self._id, LOCK_SECONDS):
            self._id = None
        self._renewed = now
        return self._id is not None

    async def release(self) -> None:
        """Release the lock, or leave it to expire if the queue cannot be reached."""
        if self._id is not None:
            lock_id, self._id = self._id, None
            with suppress(MinionError):
                await self._client.release_lock(
                    self._name, lock_id=lock_id, timeout=_RELEASE_SECONDS
                )
