"""One call of WorkerService.Work: everything between the server and one worker.

Each kind of thing that a worker has to say is served by a loop of its own, so that none waits for
another; what they answer goes into one response, which takes along all that has come together
since the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from minion.v1 import worker_pb2
from minion.v1 import worker_service_pb2 as pb
from minion_wire.sizes import MAX_PART_BYTES

from minion_server.domain.errors import Invalid, MinionError, Unavailable, WorkerNotFound
from minion_server.domain.job import ClaimedJob
from minion_server.domain.worker import Registration
from minion_server.engine.scheduler import Inbox
from minion_server.engine.workforce import JobKey, Workforce
from minion_server.rpc import convert, convert_workers
from minion_server.rpc.errors import INTERNAL_MESSAGE, MAX_TEXT_BYTES, clip
from minion_server.rpc.paging import write_some
from minion_server.storage.base import Storage

logger = logging.getLogger(__name__)

HEARTBEATS = 6
"""How often in `missing_after` the store is told that a worker lives."""
LONG_SECONDS = 3_600.0
GIVE_WAY_SECONDS = 5.0
"""How long a call may take to end by itself when the worker has made another."""
MAX_REPORTS = 100
"""Reports that wait to be served until no more requests are read, which slows the worker down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unread:
    """A response that the worker has not told to have read.

    Attributes:
        serial: Its number.
        sent: When it was sent, on the loop's clock.
        jobs: The jobs in it.
    """

    serial: int
    sent: float
    jobs: AbstractSet[JobKey]


class WorkCall:
    """Serves one worker as long as its call lasts.

    Attributes:
        over: Set once the call has ended, whether it was served or not.
    """

    def __init__(self, storage: Storage, workforce: Workforce, missing_after: timedelta) -> None:
        self._storage = storage
        self._workforce = workforce
        self._missing_after = missing_after.total_seconds()
        self._loop = asyncio.get_running_loop()
        # The call's own, which its responses are sent from.
        self._task = asyncio.current_task()
        self._registration = Registration()
        self._heartbeat_due = 0.0
        # To be sent, in their order; more than one if they are large.
        self._responses: deque[pb.WorkResponse] = deque([pb.WorkResponse()])
        self._pending = asyncio.Event()
        self._serial = 0
        self._unread: deque[_Unread] = deque()
        self._suspects: AbstractSet[JobKey] = frozenset()
        self._inbox: Inbox | None = None
        self._reports: asyncio.Queue[pb.WorkRequest.Report | None] = asyncio.Queue(MAX_REPORTS)
        self._demands: deque[pb.WorkRequest.Demand] = deque()
        self._demanded = asyncio.Event()
        self._draining = False
        self._replaced = False
        self.over = asyncio.Event()

    @property
    def _id(self) -> int:
        assert self._registration.id is not None, "it said hello"
        return self._registration.id

    def _connected(self) -> Inbox:
        assert self._inbox is not None, "it said hello"
        return self._inbox

    def drain(self) -> None:
        """Give the worker no more jobs, and tell it so."""
        self._draining = True
        self._responses[-1].draining = True
        self._pending.set()
        self._demanded.set()

    async def give_way(self) -> None:
        """End the call, since the worker has made another, and wait until it has ended."""
        self._replaced = True
        self._pending.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_WAY_SECONDS):
                await self.over.wait()
        if not self.over.is_set() and self._task is not None:
            # It waits for room on a connection that nobody reads from any more.
            self._task.cancel()
        await self.over.wait()

    async def run(
        self, requests: AsyncIterator[pb.WorkRequest]
    ) -> AsyncGenerator[pb.WorkResponse, None]:
        """Serve the call, once it has been greeted.

        Raises:
            Invalid: A request cannot be accepted.
            Unavailable: The worker has been silent for too long or has made another call, or the
                store is out of reach.
        """
        loops = [
            asyncio.create_task(self._read(requests), name="work-read"),
            asyncio.create_task(self._serve_reports(), name="work-reports"),
            asyncio.create_task(self._serve_demands(), name="work-demands"),
            asyncio.create_task(self._tell_revoked(), name="work-revoked"),
            asyncio.create_task(self._tell_commands(), name="work-commands"),
        ]
        for loop in loops:
            loop.add_done_callback(lambda _: self._pending.set())
        reading, reporting, *_ = loops
        closed = False
        try:
            while True:
                await self._pending.wait()
                self._pending.clear()
                if self._replaced:
                    raise Unavailable("the worker has made another call")
                for loop in loops:
                    if loop.done():
                        loop.result()
                if self._responses[0].ByteSize():
                    yield self._take_response()
                elif reading.done() and reporting.done():
                    closed = True
                    break
        finally:
            # In a task of its own: cancelled once more, the call must not lose what it holds.
            self._ending = asyncio.create_task(self._end(loops, closed=closed))
            await asyncio.shield(self._ending)

    def close(self) -> None:
        """Drop what is kept for the worker, and let its next call begin."""
        if self._inbox is not None:
            self._workforce.scheduler.disconnect(self._inbox)
        self.over.set()

    async def _end(self, loops: Sequence[asyncio.Task[None]], *, closed: bool) -> None:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        try:
            # Jobs that were taken for the worker and not sent.
            await self._workforce.put_back(_sent_keys(self._responses))
            if closed and not self._draining:
                await self._forget()
        except MinionError as error:
            # Its next hello, which does not name the jobs, puts them back.
            logger.warning("the call of worker %d ended unfinished: %s", self._id, error)

    async def _forget(self) -> None:
        """Forget the worker, unless it has jobs: then the call broke, which can look the same."""
        if not await self._workforce.running(self._id):
            await self._workforce.unregister(self._id)

    # What is sent

    def _take_response(self) -> pb.WorkResponse:
        response = self._responses.popleft()
        if self._responses:
            self._pending.set()
        else:
            self._responses.append(pb.WorkResponse())
        self._serial += 1
        response.serial = self._serial
        self._unread.append(
            _Unread(serial=self._serial, sent=self._loop.time(), jobs=_sent_keys([response]))
        )
        return response

    def _room(self, size: int) -> pb.WorkResponse:
        """Return the response that something of a size goes into: the last one, or a new one."""
        if self._responses[-1].ByteSize() + size > MAX_PART_BYTES:
            self._responses.append(pb.WorkResponse())
        return self._responses[-1]

    # What is read

    async def greet(self, request: pb.WorkRequest) -> int:
        """Take the first request, and answer the worker's id.

        Raises:
            Invalid: It cannot be accepted.
        """
        hello = request.hello
        registration = convert_workers.to_hello_registration(hello)
        worker_id = await self._workforce.register(registration)
        self._registration = replace(registration, id=worker_id)
        self._heartbeat_due = self._loop.time() + self._missing_after / HEARTBEATS
        # What is revoked from here on is heard of; what was before is not running any more.
        self._inbox = self._workforce.scheduler.connect(worker_id)
        if registration.id is not None:
            held = {(key.id, key.retries) for key in hello.holds}
            running = await self._workforce.running(worker_id)
            await self._workforce.put_back(running - held)
            # While it was away they were cancelled, or given up and put back.
            for job_id, retries in sorted(held - running):
                self._responses[-1].revoked.add(id=job_id, retries=retries)
        missing_after = Duration()
        missing_after.FromTimedelta(timedelta(seconds=self._missing_after))
        self._responses[-1].welcome.id = worker_id
        self._responses[-1].welcome.missing_after.CopyFrom(missing_after)
        self._pending.set()
        await self._take(request)
        return worker_id

    async def _read(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        while True:
            try:
                async with asyncio.timeout(self._missing_after):
                    request = await anext(requests, None)
            except TimeoutError:
                raise Unavailable("the worker has been silent for too long") from None
            if request is None:
                break
            if request.HasField("hello"):
                hello = convert_workers.to_hello_registration(request.hello)
                self._registration = replace(self._registration, status=hello.status)
                self._heartbeat_due = 0.0
            await self._take(request)
            await self._note_heartbeat()
            if request.HasField("hello"):
                await self._put_back_lost(request.hello)
        await self._reports.put(None)

    async def _take(self, request: pb.WorkRequest) -> None:
        while self._unread and self._unread[0].serial <= request.read:
            self._unread.popleft()
        if request.HasField("demand"):
            self._demands.append(request.demand)
            self._demanded.set()
        if request.HasField("report"):
            await self._reports.put(request.report)

    async def _note_heartbeat(self) -> None:
        now = self._loop.time()
        unread_for = now - self._unread[0].sent if self._unread else 0.0
        if unread_for > self._missing_after:
            raise Unavailable("the worker has not read what it was sent for too long")
        if now >= self._heartbeat_due and unread_for < self._missing_after / 2:
            self._heartbeat_due = now + self._missing_after / HEARTBEATS
            await self._workforce.register(self._registration)

    async def _put_back_lost(self, hello: pb.WorkRequest.Hello) -> None:
        """Put back jobs that the store says are with the worker, and that it does not know of.

        Another server may have taken them for an earlier call of the worker that broke. One that is
        being taken just now is missed once, but not twice.
        """
        known = {(key.id, key.retries) for key in hello.holds}
        missed = {
            key for key in await self._workforce.running(self._id) if key not in known
        } - self._on_the_way()
        await self._workforce.put_back(missed & self._suspects)
        self._suspects = missed

    def _on_the_way(self) -> AbstractSet[JobKey]:
        return {key for unread in self._unread for key in unread.jobs} | _sent_keys(self._responses)

    # What is served

    async def _serve_reports(self) -> None:
        while (report := await self._reports.get()) is not None:
            receipt = pb.WorkResponse.Receipt(serial=report.serial)
            try:
                receipt.accepted.extend(await self._report(report))
            except Invalid as error:
                receipt.refusal = clip(str(error), MAX_TEXT_BYTES)
            except MinionError:
                raise
            except Exception:
                # A report that is sent again and fails again would keep back all others.
                logger.exception("a report of worker %d failed", self._id)
                receipt.refusal = INTERNAL_MESSAGE
            self._room(receipt.ByteSize()).receipts.append(receipt)
            self._pending.set()

    async def _report(self, report: pb.WorkRequest.Report) -> list[bool]:
        notes = [
            (note.id, convert.from_struct(note.notes, f"report.notes[{index}].notes"))
            for index, note in enumerate(report.notes)
        ]
        outcomes = [
            convert_workers.to_reported_outcome(outcome, f"report.outcomes[{index}]")
            for index, outcome in enumerate(report.outcomes)
        ]
        await self._workforce.note(notes)
        return await self._workforce.end(outcomes) if outcomes else []

    async def _serve_demands(self) -> None:
        while True:
            await self._demanded.wait()
            self._demanded.clear()
            while self._demands:
                self._demanded.clear()
                demand = self._demands.popleft()
                # Another has taken its place already, or it takes one back.
                vain = self._demands or demand.credits <= 0 or self._draining
                jobs = [] if vain else await self._meet(demand)
                answer = pb.WorkResponse.Jobs(serial=demand.serial)
                count = write_some(jobs, answer.jobs, convert_workers.to_claimed_message)
                self._room(answer.ByteSize()).jobs.append(answer)
                self._pending.set()
                await asyncio.shield(self._workforce.put_back(_keys(jobs[count:])))

    async def _meet(self, demand: pb.WorkRequest.Demand) -> list[ClaimedJob]:
        """Take jobs for a demand, until there are some, or another demand takes its place."""
        claim = convert_workers.to_demand_claim(demand)
        scheduler = self._workforce.scheduler
        while not self._demanded.is_set():
            taking = asyncio.create_task(scheduler.dequeue(self._id, claim, LONG_SECONDS))
            # The call may end while a claim is under way that an outage holds up. What becomes of
            # it then is put right by the worker's next hello, which does not name the jobs.
            taking.add_done_callback(_notice)
            replaced = asyncio.create_task(self._demanded.wait())
            try:
                await asyncio.wait([taking, replaced], return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                await self._workforce.put_back(_keys(await _withdraw(taking)))
                raise
            finally:
                replaced.cancel()
            try:
                jobs = await _withdraw(taking)
            except WorkerNotFound:
                # It was silent, and forgotten: what it had is with others.
                await self._workforce.register(self._registration)
                continue
            if jobs:
                return jobs
        return []

    async def _tell_revoked(self) -> None:
        while True:
            revocation = await self._connected().revoked.get()
            key = pb.JobKey(id=revocation.job_id, retries=revocation.retries)
            self._room(key.ByteSize()).revoked.append(key)
            self._pending.set()

    async def _tell_commands(self) -> None:
        while True:
            await self._connected().commanded.wait()
            self._connected().commanded.clear()
            while commands := await self._storage.receive(self._id):
                for command in commands:
                    message = worker_pb2.Command()
                    convert_workers.to_command_message(command, message)
                    self._room(message.ByteSize()).commands.append(message)
                self._pending.set()


def _notice(taking: asyncio.Task[list[ClaimedJob]]) -> None:
    """Take note of an error, so that asyncio does not report it as one that nobody heeds."""
    if not taking.cancelled():
        taking.exception()


async def _withdraw(taking: asyncio.Task[list[ClaimedJob]]) -> list[ClaimedJob]:
    """Stop taking jobs, and answer what was taken; a claim under way still answers."""
    taking.cancel()
    await asyncio.wait([taking])
    return [] if taking.cancelled() else taking.result()


def _keys(jobs: Iterable[ClaimedJob]) -> set[JobKey]:
    return {(job.id, job.retries) for job in jobs}


def _sent_keys(responses: Iterable[pb.WorkResponse]) -> set[JobKey]:
    return {
        (job.id, job.retries)
        for response in responses
        for answer in response.jobs
        for job in answer.jobs
    }
