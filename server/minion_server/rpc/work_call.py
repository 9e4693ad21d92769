"""One call of WorkerService.Work: a worker's session over the network.

Each kind of message is processed by a loop of its own, so that none waits for another. Their
responses are collected in one message while the previous one is being sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from minion.v1 import worker_pb2
from minion.v1 import worker_service_pb2 as pb
from minion_wire.sizes import MAX_PART_BYTES

from minion_server.domain.errors import Invalid, MinionError, Unavailable
from minion_server.domain.job import JobKey
from minion_server.engine.session import Session
from minion_server.rpc import convert, convert_workers
from minion_server.rpc.errors import INTERNAL_MESSAGE, MAX_TEXT_BYTES, clip
from minion_server.rpc.paging import write_some

logger = logging.getLogger(__name__)

GIVE_WAY_SECONDS = 5.0
"""Time for a call to end by itself when the worker has made another."""
MAX_REPORTS = 100
"""Reports that may wait; beyond, no requests are read, which slows the worker down."""


class WorkCall:
    """Serves one call of a worker.

    Attributes:
        over: Set once the call has ended.
    """

    def __init__(self, session: Session, missing_after: timedelta) -> None:
        self._session = session
        self._missing_after = missing_after
        # The task of the call, which sends its responses.
        self._task = asyncio.current_task()
        # Responses to be sent, in order; more than one if they are large.
        self._responses: deque[pb.WorkResponse] = deque([pb.WorkResponse()])
        self._pending = asyncio.Event()
        self._serial = 0
        self._reports: asyncio.Queue[pb.WorkRequest.Report | None] = asyncio.Queue(MAX_REPORTS)
        self._replaced = False
        self.over = asyncio.Event()

    async def greet(self, request: pb.WorkRequest) -> int:
        """Process the first request, and return the worker's id.

        Raises:
            Invalid: The request is not valid.
        """
        registration = convert_workers.to_hello_registration(request.hello)
        for job_id, retries in await self._session.open(registration, _held(request.hello)):
            self._responses[-1].revoked.add(id=job_id, retries=retries)
        missing_after = Duration()
        missing_after.FromTimedelta(self._missing_after)
        welcome = pb.WorkResponse.Welcome(id=self._session.worker_id, missing_after=missing_after)
        self._responses[-1].welcome.CopyFrom(welcome)
        self._pending.set()
        await self._take(request)
        return self._session.worker_id

    async def run(
        self, requests: AsyncIterator[pb.WorkRequest]
    ) -> AsyncGenerator[pb.WorkResponse, None]:
        """Serve the call after `greet`, and yield its responses.

        Raises:
            Invalid: A request is not valid.
            Unavailable: The worker has been silent for too long or has made another call, or the
                store is unreachable.
        """
        loops = [
            asyncio.create_task(self._read(requests), name="work-read"),
            asyncio.create_task(self._serve_reports(), name="work-reports"),
            asyncio.create_task(self._serve_demands(), name="work-demands"),
            asyncio.create_task(self._send_revoked(), name="work-revoked"),
            asyncio.create_task(self._send_commands(), name="work-commands"),
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
            # In a task of its own: a second cancellation of the call must not interrupt it.
            self._ending = asyncio.create_task(self._end(loops, closed=closed))
            await asyncio.shield(self._ending)

    def drain(self) -> None:
        """Give the worker no more jobs, and notify it."""
        self._session.drain()
        self._responses[-1].draining = True
        self._pending.set()

    async def give_way(self) -> None:
        """End the call because the worker has made another, and wait until it has ended."""
        self._replaced = True
        self._pending.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_WAY_SECONDS):
                await self.over.wait()
        if not self.over.is_set() and self._task is not None:
            # It is blocked by a connection that the client no longer reads.
            self._task.cancel()
        await self.over.wait()

    def close(self) -> None:
        """Disconnect the session, and let the worker's next call start."""
        self._session.disconnect()
        self.over.set()

    async def _end(self, loops: Sequence[asyncio.Task[None]], *, closed: bool) -> None:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        try:
            await self._session.close(forget=closed)
        except MinionError as error:
            # The worker's next hello, which does not name the jobs, puts them back.
            worker_id = self._session.worker_id
            logger.warning("cannot put back the jobs of worker %d: %s", worker_id, error)

    # Responses

    def _take_response(self) -> pb.WorkResponse:
        response = self._responses.popleft()
        if self._responses:
            self._pending.set()
        else:
            self._responses.append(pb.WorkResponse())
        self._serial += 1
        response.serial = self._serial
        jobs = ((job.id, job.retries) for part in response.jobs for job in part.jobs)
        self._session.sent(self._serial, jobs)
        return response

    def _room(self, size: int) -> pb.WorkResponse:
        """Return a response with room for this many bytes: the last one, or a new one."""
        self._pending.set()
        if self._responses[-1].ByteSize() + size > MAX_PART_BYTES:
            self._responses.append(pb.WorkResponse())
        return self._responses[-1]

    # Loops

    async def _read(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        while True:
            try:
                async with asyncio.timeout(self._missing_after.total_seconds()):
                    request = await anext(requests, None)
            except TimeoutError:
                raise Unavailable("the worker has been silent for too long") from None
            if request is None:
                break
            if request.HasField("hello"):
                hello = convert_workers.to_hello_registration(request.hello)
                await self._session.receive(request.read, hello.status, _held(request.hello))
            else:
                await self._session.receive(request.read)
            await self._take(request)
        await self._reports.put(None)

    async def _take(self, request: pb.WorkRequest) -> None:
        if request.HasField("demand"):
            demand = request.demand
            wanted = convert_workers.to_demand_claim(demand) if demand.credits > 0 else None
            self._session.demand(demand.serial, wanted)
        if request.HasField("report"):
            await self._reports.put(request.report)

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
                # The worker would send a failed report again, and it would block all others.
                logger.exception("a report of worker %d failed", self._session.worker_id)
                receipt.refusal = INTERNAL_MESSAGE
            self._room(receipt.ByteSize()).receipts.append(receipt)

    async def _report(self, report: pb.WorkRequest.Report) -> list[bool]:
        notes = [
            (note.id, convert.from_struct(note.notes, f"report.notes[{index}].notes"))
            for index, note in enumerate(report.notes)
        ]
        outcomes = [
            convert_workers.to_reported_outcome(outcome, f"report.outcomes[{index}]")
            for index, outcome in enumerate(report.outcomes)
        ]
        return await self._session.report(outcomes, notes)

    async def _serve_demands(self) -> None:
        while True:
            serial, jobs = await self._session.jobs()
            part = pb.WorkResponse.Jobs(serial=serial)
            count = write_some(jobs, part.jobs, convert_workers.to_claimed_message)
            self._room(part.ByteSize()).jobs.append(part)
            await self._session.put_back(job.key for job in jobs[count:])

    async def _send_revoked(self) -> None:
        while True:
            job_id, retries = await self._session.revoked()
            key = pb.JobKey(id=job_id, retries=retries)
            self._room(key.ByteSize()).revoked.append(key)

    async def _send_commands(self) -> None:
        while True:
            for command in await self._session.commands():
                message = worker_pb2.Command()
                convert_workers.to_command_message(command, message)
                self._room(message.ByteSize()).commands.append(message)


def _held(hello: pb.WorkRequest.Hello) -> frozenset[JobKey]:
    return frozenset((key.id, key.retries) for key in hello.holds)
