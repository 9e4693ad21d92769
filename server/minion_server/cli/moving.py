"""`minion db copy`: move a queue from one database to another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum

from minion_server.cli.output import print_warning
from minion_server.cli.serving import stop_event
from minion_server.domain.errors import Conflict, MinionError
from minion_server.storage.transfer import OutcomeUnknown, Records, Transfer

POLL_SECONDS = 0.2


async def move_queue(
    source: Transfer, target: Transfer, seconds: float
) -> Mapping[str, int] | None:
    """Move a queue to another database.

    No job is lost and none runs twice: the source first gives out no more jobs, then running jobs
    are waited for, then everything is copied while the source refuses writes, as it does from then
    on.

    Args:
        source: Where the queue is.
        target: Where it goes.
        seconds: How long to wait for running jobs.

    Returns:
        The number of records of each kind; None if a signal stopped the move, and the queue is
        where it was.

    Raises:
        MinionError: The queue was not moved, or printed warnings say what to do.
    """
    await _check(source, target)
    # From here on, no step is cancelled halfway: its outcome would be unknown.
    stop = stop_event(lambda: None)
    await _hold(source)
    copy = _Copy(source, target)
    try:
        remaining = await _wait_for_active(source, seconds, stop)
        if not stop.is_set():
            if remaining:
                print_warning(f"{remaining} jobs are still running: they are moved as they are")
            await _run(copy, stop)
    except BaseException:
        await copy.settle()
        raise
    if copy.written is None:
        await copy.settle()
    return copy.written


class _Outcome(StrEnum):
    """Part of a queue that the target has."""

    NOTHING = "nothing"
    UNKNOWN = "unknown"
    ALL = "all"


class _Copy:
    """One copy of a queue.

    Attributes:
        is_read: Whether everything has been read: it may be committed at any moment.
        written: The number of records of each kind; None until they are committed.
    """

    def __init__(self, source: Transfer, target: Transfer) -> None:
        self.is_read = False
        self.written: Mapping[str, int] | None = None
        self._source = source
        self._target = target
        self._outcome = _Outcome.NOTHING

    async def run(self) -> None:
        """Copy everything, and seal the source."""
        seal = f"the queue has been moved to {self._target.place}"
        async with self._source.read(seal=seal) as records:
            try:
                self.written = await self._target.write(self._watch(records))
            except OutcomeUnknown:
                self._outcome = _Outcome.UNKNOWN
                raise
            except asyncio.CancelledError:
                if self.is_read:
                    self._outcome = _Outcome.UNKNOWN
                raise
            self._outcome = _Outcome.ALL

    async def settle(self) -> None:
        """Open the source again if the target has nothing; seal it otherwise."""
        source, target = self._source, self._target
        match self._outcome:
            case _Outcome.NOTHING:
                await _reopen(source)
            case _Outcome.ALL:
                await _seal(source, f"the queue has been moved to {target.place}")
                print_warning(f"the queue is at {target.place} now: do not reopen {source.place}")
            case _Outcome.UNKNOWN:
                await _seal(source, f"the queue may have been moved to {target.place}")
                print_warning(
                    f"it is not known whether the queue is at {target.place} now: `minion db "
                    f"status` shows what is there; only if that is nothing, open {source.place} "
                    "again with `minion db reopen`"
                )

    async def _watch(self, records: Records) -> Records:
        async for batch in records:
            yield batch
        self.is_read = True


async def _check(source: Transfer, target: Transfer) -> None:
    """Raise errors that would end a move, while the queue still runs."""
    if await source.identity() == await target.identity():
        raise Conflict(f"the queue cannot be moved to where it is: {target.place}")
    if closed := (await source.status()).closed:
        raise Conflict(f"{source.place} is closed: {closed} (`minion db reopen` would open it)")
    await source.check_seal()
    await target.check_empty()


async def _hold(source: Transfer) -> None:
    try:
        await source.hold()
    except OutcomeUnknown:
        print_warning(
            f"the queue at {source.place} may give out no jobs: `minion db status` shows whether "
            "it is open, `minion db reopen` opens it"
        )
        raise


async def _wait_for_active(source: Transfer, seconds: float, stop: asyncio.Event) -> int:
    end = time.monotonic() + seconds
    # Other servers end them, without a notification to this process.
    while (active := await source.active_jobs()) and time.monotonic() < end:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_SECONDS)
            break
    return active


async def _run(copy: _Copy, stop: asyncio.Event) -> None:
    """Copy, unless a signal comes before everything has been read."""
    copying = asyncio.create_task(copy.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([copying, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if copying.done() or copy.is_read:
        if not copying.done():
            print_warning("it is too late to stop the move: it ends by itself")
        await copying
        return
    copying.cancel()
    await asyncio.wait([copying])
    if not copying.cancelled():
        copying.result()


async def _reopen(source: Transfer) -> None:
    """Open a queue again, or print a warning."""
    try:
        await source.reopen()
    except (MinionError, OSError) as error:
        print_warning(
            f"the queue at {source.place} may give out no jobs until `minion db reopen` has opened "
            f"it, which failed now: {error}"
        )


async def _seal(source: Transfer, text: str) -> None:
    """Let a queue that has moved take no jobs, which nothing would run."""
    try:
        async with source.read(seal=text):
            pass
    except Conflict:
        return  # it is sealed already
    except (MinionError, OSError) as error:
        print_warning(f"{source.place} may still take jobs, which nobody runs: {error}")
