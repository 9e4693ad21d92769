"""Watches of jobs, which yield a job after each change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from minion_server.domain.job import Job
from minion_server.storage.base import Storage
from minion_server.storage.changes import Changes


class Watchers:
    """Wakes the watchers of a job when a commit changes it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._changed: dict[int, set[asyncio.Event]] = {}
        storage.subscribe(self._notify)

    @property
    def watched(self) -> frozenset[int]:
        """Ids of the jobs that are watched."""
        return frozenset(self._changed)

    async def watch_job(self, job_id: int) -> AsyncGenerator[Job, None]:
        """Yield a job, then again after each change, until it has finished or failed.

        If changes come faster than they are consumed, only the last is certain to be yielded.

        Raises:
            JobNotFound: No job has this id, or the job was removed meanwhile.
        """
        changed = asyncio.Event()
        watchers = self._changed.setdefault(job_id, set())
        watchers.add(changed)
        try:
            job = await self._storage.get_job(job_id)
            yield job
            while not job.state.is_final:
                await changed.wait()
                changed.clear()
                before, job = job, await self._storage.get_job(job_id)
                if replace(before, time=job.time) != job:
                    yield job
        finally:
            watchers.discard(changed)
            if not watchers:
                self._changed.pop(job_id, None)

    def _notify(self, changes: Changes) -> None:
        if not self._changed:
            return
        watched = self._changed.keys()
        for job_id in watched if changes.cleared else watched & changes.jobs:
            for changed in self._changed[job_id]:
                changed.set()
