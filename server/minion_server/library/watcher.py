"""The watcher: enqueues `handle_upload` for each archive that arrives in a folder, once.

Files are found by a scan at the start, by watchfiles, and by a scan every `interval` for what
watchfiles misses: changes on network file systems, more changes than the system's queue holds. A
file has arrived when its size and times have not changed for `settle` seconds.

A file is enqueued exactly once, whenever this process is killed:

1. The file is claimed in the record (`watch_record`), on disk, with a new request id.
2. Its job is enqueued with this request id. The queue enqueues one job for a request id.
3. The claim is confirmed in the record.

Claims that are not confirmed are enqueued again at the next start, with the same request ids. The
queue forgets request ids after a day, so that for older claims the jobs are searched for the
request id, which is in their notes. Only if such a job has been removed meanwhile, the file is
enqueued once more, to which `handle_upload` responds that the library has it.

A file is the same one while it has its size, time of modification and inode (or name and time of
change, if inodes are numbered anew at each mount). So a renamed file is not new, except when its
upload has not read it under the old name. A file that was refused is not new either.

The source is never removed: `handle_upload` copies it, and a mistake would lose data.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from minion_client import MinionError

from minion_server.library.errors import LibraryError
from minion_server.library.folder_events import FolderEvents
from minion_server.library.watch_queue import FolderLock, UploadQueue
from minion_server.library.watch_record import Claim, WatchRecord
from minion_server.library.watched_folder import FoundFile, Walk, WatchedFolder
from minion_server.loop import RETRY_SECONDS, Loop

if TYPE_CHECKING:
    from minion_client import AsyncClient

logger = logging.getLogger(__name__)

BATCH_FILES: Final = 100
"""Files that are enqueued by one request."""
MAX_CANDIDATES: Final = 10_000
"""Files that are held in memory, beyond which the scan waits."""

_IDLE_SECONDS: Final = 2.0
_FULL_SECONDS: Final = 1.0
_SLICE_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 5.0

P = ParamSpec("P")
T = TypeVar("T")


class Watcher(Loop):
    """Watches one folder, unless another server with the same queue does.

    Args:
        client: The queue.
        folder: The folder.
        library: The library's directory, for the record.
        queue: Where uploads are enqueued.
        settle: Seconds without a change after which a file has arrived.
        interval: Seconds between two scans.
        locked: Whether other servers may watch the folder: one of them does then, which holds a
            lock of the queue.
        clock: Returns seconds, for everything but the record.
    """

    def __init__(
        self,
        client: AsyncClient,
        folder: WatchedFolder,
        library: Path,
        *,
        queue: str = "default",
        settle: float,
        interval: float,
        locked: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._record = WatchRecord(library)
        self._queue = UploadQueue(client, queue)
        self._settle = settle
        self._interval = interval
        self._clock = clock
        self._lock = FolderLock(client, folder.path, clock) if locked else None
        # One thread for everything that blocks.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="watcher")
        # Used by that thread.
        self._walk = Walk(folder)
        self._is_scan_due = False
        self._events: FolderEvents | None = None
        self._changes: set[str] = set()
        self._identity: tuple[int, int] | None = None
        self._is_missing = False
        self._next_scan = 0.0
        # Each with when it was first seen like this, the earliest first.
        self._candidates: dict[str, tuple[FoundFile, float]] = {}
        self._has_claims = True
        self._full_until = 0.0

    async def step(self) -> float:
        """Enqueue what has arrived, and return the seconds until more may have."""
        try:
            if self._lock is not None and not await self._lock.hold():
                self._forget()
                return RETRY_SECONDS
            await self._resend()
            await self._follow_folder()
            await self._find()
            is_full = not await self._enqueue()
        except (LibraryError, MinionError) as error:
            logger.warning("cannot watch %s; trying again: %s", self._folder.path, error)
            return RETRY_SECONDS
        return self._pause(is_full=is_full)

    async def stop(self) -> None:
        """Stop, and release the lock for another server."""
        await super().stop()
        events = self._events
        self._end_events()

        def close() -> None:
            if events is not None:
                events.join(_STOP_SECONDS)
            self._record.close()

        # The file system may be out of reach.
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._in_thread(close)
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._lock is not None:
            await self._lock.release()

    async def _follow_folder(self) -> None:
        """Begin a scan, and a watch, when one is due or the folder is another one."""
        identity = await self._in_thread(self._folder.identity)
        if identity is None:
            if not self._is_missing:
                logger.warning("%s is not there; waiting for it", self._folder.path)
            self._is_missing = True
            self._end_events()
            self._walk.clear()
        elif identity != self._identity or (
            self._clock() >= self._next_scan and self._walk.is_done
        ):
            if identity != self._identity:
                logger.info("watching %s", self._folder.path)
            self._is_missing = False
            self._end_events()
            self._next_scan = inf
            # The scan follows when the watch has begun, so that nothing is missed between them.
            self._events = FolderEvents(
                self._folder,
                on_begin=self._begin_scan,
                on_changes=self._on_changes,
                on_end=self._on_end,
            )
            self._events.start()
        self._identity = identity

    def _begin_scan(self) -> None:
        self._is_scan_due = True
        self._next_scan = self._clock() + self._interval
        self.wake()

    def _end_events(self) -> None:
        if self._events is not None:
            self._events.stop()
            self._events = None

    def _on_changes(self, paths: frozenset[str]) -> None:
        if len(self._changes) < MAX_CANDIDATES:
            self._changes |= paths
        else:
            self._changes.clear()
            self._is_scan_due = True
        self.wake()

    def _on_end(self, problem: str | None) -> None:
        self._events = None
        if problem is None:
            # Another folder may be there already, and have the same inode.
            self._identity = None
        else:
            logger.warning(
                "no events of %s, only a scan every %g seconds: %s",
                self._folder.path,
                self._interval,
                problem,
            )
            self._begin_scan()
        self.wake()

    def _forget(self) -> None:
        """Begin anew later: another server watches the folder."""
        self._end_events()
        self._identity = None
        self._changes.clear()
        self._walk.clear()
        self._candidates.clear()
        self._has_claims = True

    async def _find(self) -> None:
        """Look at what has changed, and walk on."""
        if len(self._candidates) >= MAX_CANDIDATES:
            return
        changes, self._changes = self._changes, set()
        if self._is_scan_due:
            self._is_scan_due = False
            self._walk.add(self._folder.path)
        if not changes and self._walk.is_done:
            return
        for found in await self._in_thread(self._new_files, changes):
            # A file that keeps its size and times keeps its place.
            if self._candidates.get(found.path, (None, 0.0))[0] != found:
                self._put_back(found)

    def _put_back(self, file: FoundFile) -> None:
        self._candidates.pop(file.path, None)
        self._candidates[file.path] = (file, self._clock())

    def _new_files(self, changes: set[str]) -> list[FoundFile]:
        found = []
        for path in sorted(changes):
            match self._folder.look(path):
                case FoundFile() as file:
                    found.append(file)
                case str() as directory:
                    self._walk.add(directory)
                case None:
                    pass
        found += self._walk.find(limit=MAX_CANDIDATES, seconds=_SLICE_SECONDS)
        return [file for file in found if self._is_new(file)]

    def _is_new(self, file: FoundFile) -> bool:
        """Return whether a file is not recorded, or was renamed since."""
        known = self._record.find(file)
        if known is None:
            return True
        if known.path == file.path or known.job is None:
            return False
        # A hard link, a second name of the same file, is not a new file.
        before = self._folder.look(known.path)
        return not isinstance(before, FoundFile) or before.inode != file.inode

    async def _enqueue(self) -> bool:
        """Enqueue a batch of files that have arrived; return False if the queue is full."""
        due = self._due()
        if not due:
            return True
        # Steps that changes wake do not ask again.
        if self._clock() < self._full_until:
            return False
        room = await self._queue.room()
        if not room:
            self._full_until = self._clock() + _FULL_SECONDS
            return False
        seen = due[:room]
        arrived, growing = await self._in_thread(self._check, seen)
        renamed = await self._in_thread(self._jobs_of_renamed, arrived)
        unread = await self._queue.unread(set(renamed.values()))
        done = {file for file, job in renamed.items() if job not in unread}
        self._has_claims = True
        claims = await self._in_thread(
            self._claim, [file for file in arrived if file not in done], list(done)
        )
        for file in seen:
            del self._candidates[file.path]
        for file in growing:
            self._put_back(file)
        await self._send(claims)
        return True

    def _due(self) -> list[FoundFile]:
        """Return files that have not changed for long enough, as far as is known."""
        latest = self._clock() - self._settle
        due: list[FoundFile] = []
        for file, since in self._candidates.values():
            if since > latest or len(due) == BATCH_FILES:
                break
            due.append(file)
        return due

    def _check(self, files: list[FoundFile]) -> tuple[list[FoundFile], list[FoundFile]]:
        """Return which files have not changed since, and can be read; and which have."""
        arrived, growing = [], []
        for file in files:
            now = self._folder.look(file.path)
            if not isinstance(now, FoundFile):
                continue
            if now != file:
                growing.append(now)
            elif self._folder.is_readable(file) and self._is_new(file):
                arrived.append(file)
        return arrived, growing

    def _jobs_of_renamed(self, files: list[FoundFile]) -> dict[FoundFile, int]:
        known = {file: self._record.find(file) for file in files}
        return {file: row.job for file, row in known.items() if row and row.job is not None}

    def _claim(self, files: list[FoundFile], renamed: list[FoundFile]) -> list[Claim]:
        self._record.rename(renamed)
        return self._record.claim(files)

    async def _resend(self) -> None:
        """Enqueue what was claimed, but may not be in the queue."""
        if self._has_claims:
            await self._send(await self._in_thread(self._record.unconfirmed))

    async def _send(self, claims: list[Claim]) -> None:
        if claims:
            jobs = await self._queue.send(claims)
            await self._in_thread(self._record.confirm, jobs)
            logger.info("enqueued %d of the files in %s", len(jobs), self._folder.path)
        self._has_claims = False

    def _pause(self, *, is_full: bool) -> float:
        if is_full:
            return _FULL_SECONDS
        if not self._walk.is_done and len(self._candidates) < MAX_CANDIDATES:
            return 0.0
        if not self._candidates:
            return _IDLE_SECONDS
        _, since = next(iter(self._candidates.values()))
        return min(_IDLE_SECONDS, max(0.0, since + self._settle - self._clock()))

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
