"""One `WorkerService.Work` call, and the state that a worker keeps between calls."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from minion.v1 import worker_pb2
from minion.v1 import worker_service_pb2 as pb
from minion_wire import values
from minion_wire.json_value import JsonValue
from minion_wire.sizes import MAX_PART_BYTES

from minion_client._api.responses import to_record
from minion_client._work.outbox import Outbox
from minion_client._work.waiting import end_all
from minion_client.source import JobKey

_log = logging.getLogger(__name__)

DEFAULT_MISSING_AFTER = 90.0
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs
_BEATS = 6
_MAX_BEAT_SECONDS = 15.0
_PATIENCE_BEATS = 2


class DeadCall(ConnectionError):
    """The server is silent, or breaks the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenJob:
    """A job from the server (see `ClaimedJob`)."""

    id: int
    task: str
    args: list[JsonValue]
    retries: int
    attempts: int
    priority: int
    queue: str
    notes: dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentCommand:
    """A command from the server (see `Command`)."""

    command: str
    args: list[JsonValue]


_to_job = to_record(TakenJob, worker_pb2.ClaimedJob)
_to_command = to_record(SentCommand, worker_pb2.Command)


@dataclass(slots=True, kw_only=True, eq=False)
class Demand:
    """A demand for jobs, which can outlast calls.

    Attributes:
        message: The request; its serial is set when it is sent.
        jobs: The jobs that the server sends.
        sent: Whether it was sent in the current call.
        withdrawn: Whether the worker no longer needs it.
        withdrawal: Serial and time of the demand that withdraws it, once sent.
    """

    message: pb.WorkRequest.Demand
    jobs: asyncio.Future[Sequence[TakenJob]]
    sent: bool = False
    withdrawn: bool = False
    withdrawal: tuple[int, float] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class WorkState:
    """The state that a worker keeps between calls.

    Attributes:
        outbox: Its notes and outcomes.
        worker_id: Its id, once it has one.
        status: Its status.
        missing_after: Seconds of silence after which the server considers it missing.
        status_due: Whether the status has to be sent.
        held: Keys of the received jobs that are not settled, in order.
        demand: The demand for jobs.
        revoked: Keys of jobs to stop.
        commands: Commands to carry out.
        wake: Set when there is something to send.
        closing: Whether it disconnects when everything is acknowledged.
    """

    outbox: Outbox
    worker_id: int | None = None
    status: Mapping[str, JsonValue] = field(default_factory=dict)
    missing_after: float = DEFAULT_MISSING_AFTER
    status_due: bool = False
    held: dict[JobKey, None] = field(default_factory=dict)
    demand: Demand | None = None
    revoked: asyncio.Queue[JobKey] = field(default_factory=asyncio.Queue)
    commands: asyncio.Queue[SentCommand] = field(default_factory=asyncio.Queue)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False

    def hello(self) -> pb.WorkRequest.Hello:
        """Return the worker's identity, status and held jobs."""
        hello = pb.WorkRequest.Hello(
            id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            holds=[pb.JobKey(id=job_id, retries=retries) for job_id, retries in self.held],
        )
        values.to_struct(self.status, hello.status)
        return hello

    def end_demand(self, jobs: Sequence[TakenJob] = ()) -> None:
        """End the demand with the jobs that were received for it."""
        demand, self.demand = self.demand, None
        if demand is not None and not demand.jobs.done():
            demand.jobs.set_result(jobs)

    def call_ended(self) -> None:
        """Keep everything that is not acknowledged for the next call."""
        self.outbox.requeue()
        if self.demand is not None:
            self.demand.sent = False
            if self.demand.withdrawn:
                # The server puts back the jobs claimed for it: the next hello does not hold them.
                self.end_demand()


class WorkCall:
    """One call: sends hello and then the other requests, and processes the responses.

    Args:
        call: The call, from the stub.
        state: The worker's state.
        clock: Returns the seconds of a monotonic clock.
    """

    def __init__(self, call: Any, state: WorkState, clock: Callable[[], float]) -> None:
        self._call = call
        self._state = state
        self._clock = clock
        self._serial = 0
        self._last_read = 0
        self._beat_due = False
        self._draining = False
        self._closed: float | None = None
        self.useful = False

    async def greet(self) -> None:
        """Send hello and process the welcome.

        Raises:
            AioRpcError: The call failed.
            DeadCall: The first response is not a welcome.
        """
        state = self._state
        state.status_due = False
        await self._call.write(pb.WorkRequest(hello=state.hello()))
        response = await self._call.read()
        if response is _EOF or not response.HasField("welcome"):
            raise DeadCall("the server did not welcome the worker")
        state.worker_id = response.welcome.id
        missing_after = response.welcome.missing_after.ToTimedelta().total_seconds()
        state.missing_after = missing_after or DEFAULT_MISSING_AFTER
        self._take(response)

    async def run(self) -> None:
        """Send and receive until both sides have ended the call, or the server drains.

        Raises:
            AioRpcError: The call failed.
            DeadCall: The server is silent.
        """
        self._state.wake.set()
        tasks = [asyncio.create_task(loop()) for loop in (self._read, self._write, self._watch)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await end_all(tasks)

    # Sending

    async def _write(self) -> None:
        state = self._state
        while True:
            await state.wake.wait()
            state.wake.clear()
            # Send what this turn of the loop produces together.
            await asyncio.sleep(0)
            try:
                while requests := self._next_requests():
                    for request in requests:
                        await self._call.write(request)
                done = self._draining or (state.closing and state.demand is None)
                if done and state.outbox.empty:
                    self._closed = self._clock()
                    await self._call.done_writing()
                    break
            except asyncio.InvalidStateError:
                # The call is over: `_read` raises the error.
                break
        await asyncio.Event().wait()

    def _next_requests(self) -> list[pb.WorkRequest]:
        """Return what there is to send, in one request unless it would be too large."""
        state = self._state
        parts: list[pb.WorkRequest] = []
        if self._beat_due or state.status_due:
            state.status_due = False
            parts.append(pb.WorkRequest(hello=state.hello()))
        demand = None if self._draining else self._next_demand()
        if demand is not None:
            parts.append(pb.WorkRequest(demand=demand))
        report = state.outbox.next_report(even_empty=self._beat_due)
        if report is not None:
            parts.append(pb.WorkRequest(report=report))
        self._beat_due = False
        requests: list[pb.WorkRequest] = []
        for part in parts:
            if requests and requests[-1].ByteSize() + part.ByteSize() <= MAX_PART_BYTES:
                requests[-1].MergeFrom(part)
            else:
                part.read = self._last_read
                requests.append(part)
        return requests

    def _next_demand(self) -> pb.WorkRequest.Demand | None:
        demand = self._state.demand
        if demand is None or demand.withdrawal is not None:
            return None
        if not demand.sent:
            if demand.withdrawn:
                self._state.end_demand()
                return None
            self._serial += 1
            demand.message.serial = self._serial
            demand.sent = True
            return demand.message
        if not demand.withdrawn:
            return None
        self._serial += 1
        demand.withdrawal = (self._serial, self._clock())
        return pb.WorkRequest.Demand(serial=self._serial, credits=0)

    # Receiving

    async def _read(self) -> None:
        while (response := await self._call.read()) is not _EOF:
            self._take(response)
        if self._closed is None:
            raise DeadCall("the server ended the call")

    def _take(self, response: pb.WorkResponse) -> None:
        state = self._state
        self._last_read = response.serial
        for jobs in response.jobs:
            self._take_jobs(jobs)
        for receipt in response.receipts:
            for key in state.outbox.take(receipt):
                state.held.pop(key, None)
            # A refused report is sent again in parts, and the call ends after the last receipt.
            state.wake.set()
        for revoked in response.revoked:
            key = (revoked.id, revoked.retries)
            state.held.pop(key, None)
            state.revoked.put_nowait(key)
        for command in response.commands:
            state.commands.put_nowait(_to_command(command))
        if response.draining and not self._draining:
            _log.info("The server is shutting down")
            self._draining = True
            state.wake.set()
            if state.demand is not None and state.demand.withdrawn:
                state.end_demand()
        elif response.jobs or response.receipts:
            self.useful = True

    def _take_jobs(self, response: pb.WorkResponse.Jobs) -> None:
        state = self._state
        demand = state.demand
        if demand is not None and demand.sent:
            withdrawal = demand.withdrawal[0] if demand.withdrawal is not None else None
            if response.serial in (demand.message.serial, withdrawal):
                jobs = [_to_job(job) for job in response.jobs]
                if not demand.jobs.cancelled():
                    state.held.update(((job.id, job.retries), None) for job in jobs)
                state.end_demand(jobs)
                return
        if response.jobs:
            # The jobs are not held, so the server puts them back after the next hello.
            raise DeadCall("the server sent jobs that were not requested")

    # Watching

    async def _watch(self) -> None:
        """Send heartbeats, and raise DeadCall if the server stops responding."""
        beat = min(self._state.missing_after / _BEATS, _MAX_BEAT_SECONDS)
        patience = beat * _PATIENCE_BEATS
        while True:
            await asyncio.sleep(beat)
            oldest = self._oldest_unanswered()
            if oldest is not None and self._clock() - oldest > patience:
                raise DeadCall(f"no response from the server for {patience:g} seconds")
            self._beat_due = True
            self._state.wake.set()

    def _oldest_unanswered(self) -> float | None:
        times = [self._state.outbox.oldest, self._closed]
        if self._state.demand is not None and self._state.demand.withdrawal is not None:
            times.append(self._state.demand.withdrawal[1])
        return min((time for time in times if time is not None), default=None)
