"""Where a worker on any machine takes its jobs from: a server, over gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import grpc.aio
from minion.v1 import worker_service_pb2 as pb
from minion.v1.worker_service_pb2_grpc import WorkerServiceStub
from minion_wire import values
from minion_wire.json_value import JsonValue

from minion_client._work.outbox import MAX_MESSAGE_BYTES, MAX_REPORT_BYTES, Delivery, Outbox
from minion_client._work.waiting import is_outage
from minion_client._work.work_call import Demand, SentCommand, TakenJob, WorkCall, WorkState
from minion_client.backoff import Backoff
from minion_client.endpoint import Endpoint
from minion_client.errors import InvalidError, from_rpc_error
from minion_client.source import MAX_CLAIM, JobKey, Outcome, SourceRefused

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 20.0
# At first these mean that it will never work. A worker that was welcome may have jobs to deliver,
# and what refuses it may be temporary: a key that is being changed, or a proxy without a server.
_FATAL_AT_FIRST = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class GrpcSource:
    """Takes jobs from a server, in one `WorkerService.Work` call after the other (see `JobSource`).

    A call that breaks is followed by another, until `close`: what is asked, reported or noted
    meanwhile waits, and what was sent and not answered is sent again. All on one event loop.

    Args:
        endpoint: The server.
        backoff: How long to wait before the next call; never longer than a quarter of the time
            after which the server takes a silent worker for gone.
        clock: Answers the seconds of a steady clock.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._state = WorkState(outbox=Outbox(clock))
        self._connected = asyncio.Event()
        self._calling: asyncio.Task[None] | None = None
        self._refusal: SourceRefused | None = None
        self._failures = 0

    async def register(self, status: Mapping[str, JsonValue]) -> int:
        """Register the worker, or tell its status; waits for the server, however long it takes.

        Raises:
            SourceRefused: The server refuses the worker or its status.
        """
        if self._refusal is not None:
            raise self._refusal
        state = self._state
        state.status, state.status_due = status, True
        _check_size("status", state.hello())
        state.wake.set()
        if self._calling is None or self._calling.done():
            self._calling = asyncio.create_task(self._keep_calling(), name="minion-work-calls")
            self._calling.add_done_callback(self._stopped_calling)
        await _either(self._calling, self._connected)
        assert state.worker_id is not None, "the welcome tells it"
        return state.worker_id

    async def unregister(self) -> None:
        """Disconnect after all reports have been acknowledged."""
        state = self._state
        state.closing = True
        if state.demand is not None:
            state.demand.withdrawn = True
        state.wake.set()
        if self._calling is not None:
            await asyncio.wait((self._calling,))

    async def close(self) -> None:
        """Hang up, if that has not been done. The server waits for the worker to come back."""
        if self._calling is not None:
            self._calling.cancel()
            await asyncio.wait((self._calling,))

    async def dequeue(
        self,
        *,
        queues: Sequence[str],
        tasks: Sequence[str],
        min_priority: int | None,
        max_jobs: int,
        wait: float,
    ) -> Sequence[TakenJob]:
        """Take jobs, waiting for the first (see `JobSource`)."""
        if self._refusal is not None:
            raise self._refusal
        self._check_calling()
        if not 1 <= max_jobs <= MAX_CLAIM:
            raise ValueError(f"max_jobs: must be in 1..{MAX_CLAIM}, not {max_jobs}")
        message = pb.WorkRequest.Demand(
            credits=max_jobs, queues=queues, tasks=tasks, min_priority=min_priority
        )
        _check_size("tasks", message)
        demand = Demand(message=message, jobs=asyncio.get_running_loop().create_future())
        assert self._state.demand is None, "one at a time"
        self._state.demand = demand
        self._state.wake.set()
        try:
            await asyncio.wait((demand.jobs,), timeout=wait)
            self._withdraw(demand)
            await asyncio.wait((demand.jobs,))
        except asyncio.CancelledError:
            # Answered nevertheless, if the server has handed over some meanwhile.
            if jobs := await self._late_answer(demand):
                return jobs
            raise
        return demand.jobs.result()

    async def report(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        """Finish and fail jobs (see `JobSource`)."""
        self._check_calling()
        deliveries: list[Delivery] = []
        batch: list[pb.WorkRequest.Outcome] = []
        size = 0
        for outcome in map(_to_message, outcomes):
            more = outcome.ByteSize()
            if batch and size + more > MAX_REPORT_BYTES:
                deliveries.append(Delivery(outcomes=batch, size=size))
                batch, size = [], 0
            batch.append(outcome)
            size += more
        deliveries.append(Delivery(outcomes=batch, size=size))
        for delivery in deliveries:
            self._state.outbox.post(delivery)
        self._state.wake.set()
        accepted = await asyncio.gather(*(delivery.taken for delivery in deliveries))
        return [one for answer in accepted for one in answer]

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's (see `JobSource`)."""
        self._check_calling()
        message = pb.WorkRequest.Notes(id=job_id)
        values.to_struct(notes, message.notes)
        delivery = Delivery(notes=[message], size=message.ByteSize())
        self._state.outbox.post(delivery)
        self._state.wake.set()
        await delivery.taken

    async def revoked(self) -> JobKey:
        """Wait for the next job that is to be stopped (see `JobSource`)."""
        return await self._state.revoked.get()

    async def commanded(self) -> SentCommand:
        """Wait for the next command (see `JobSource`)."""
        return await self._state.commands.get()

    def _withdraw(self, demand: Demand) -> None:
        """Take a demand back, if it is not answered."""
        if demand.jobs.done():
            return
        demand.withdrawn = True
        if demand.sent:
            self._state.wake.set()
        else:
            self._state.answer_demand(())

    async def _late_answer(self, demand: Demand) -> Sequence[TakenJob]:
        """Take a demand back, and answer what was taken for it."""
        self._withdraw(demand)
        try:
            await asyncio.wait((demand.jobs,))
        except asyncio.CancelledError:
            # Nobody will know of the jobs: they must not be held.
            demand.jobs.cancel()
            raise
        return demand.jobs.result()

    # Calls

    async def _keep_calling(self) -> None:
        """Have one call after the other, until the worker has disconnected.

        Raises:
            SourceRefused: The server refuses the worker, or what it asks for.
        """
        warned = ""
        while True:
            try:
                await self._call()
            except grpc.aio.AioRpcError as error:
                problem = self._problem(error)
            except Exception as error:
                if not is_outage(error):
                    raise
                problem = f"cannot reach the server at {self._endpoint.target}: "
                problem += str(error) or "no answer"
            else:
                if self._state.closing:
                    return
                problem = f"the server at {self._endpoint.target} is going down"
            self._failures += 1
            if self._failures == 1 or problem != warned:
                _log.warning("%s; trying again", problem)
                warned = problem
            # In time to be heard before the server takes the worker for gone.
            longest = self._state.missing_after / 4
            await asyncio.sleep(min(self._backoff.delay(self._failures), longest))

    def _problem(self, error: grpc.aio.AioRpcError) -> str:
        """Return why a call failed.

        Raises:
            SourceRefused: The next one would fail too.
        """
        meaning = from_rpc_error(error)
        target = self._endpoint.target
        if is_outage(meaning):
            return f"cannot reach the server at {target}: {meaning}"
        refused = f"The server at {target} refused the call: {meaning}"
        if isinstance(meaning, InvalidError):
            raise SourceRefused(refused) from error
        if error.code() in _FATAL_AT_FIRST:
            if self._state.worker_id is None:
                raise SourceRefused(refused) from error
            return refused
        return f"the server at {target} ended the call: {meaning}"

    async def _call(self) -> None:
        """Have one call."""
        state = self._state
        # A new channel is a new connection: the old one may be what does not work.
        channel = self._endpoint.open_aio()
        work = WorkerServiceStub(channel).Work(None, metadata=self._endpoint.metadata)
        call = WorkCall(work, state, self._clock)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await call.greet()
            if self._failures:
                _log.info("connected after %d failure(s)", self._failures)
            self._connected.set()
            await call.run()
        finally:
            if call.useful:
                # One that only says hello and breaks off is a failure like any other.
                self._failures = 0
            self._connected.clear()
            state.hang_up()
            await channel.close(None)

    def _stopped_calling(self, calling: asyncio.Task[None]) -> None:
        """Let nobody wait for what will not come any more."""
        reason = None if calling.cancelled() else calling.exception()
        if calling.cancelled():
            error = ConnectionError("the source is closed")
        else:
            error = ConnectionError(str(reason or "the worker has disconnected"))
        # What was reported is not what is refused.
        self._state.outbox.fail(error)
        if isinstance(reason, SourceRefused):
            self._refusal = reason
        demand, self._state.demand = self._state.demand, None
        if demand is not None and not demand.jobs.done():
            demand.jobs.set_exception(self._refusal or error)

    def _check_calling(self) -> None:
        if self._calling is None or self._calling.done():
            raise ConnectionError("the worker is not registered")


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait for an event, unless a task ends first, which it should not."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        task.result()
        raise ConnectionError("the worker has disconnected")


def _check_size(field: str, message: pb.WorkRequest.Hello | pb.WorkRequest.Demand) -> None:
    if (size := message.ByteSize()) > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"{field}: too large: {size} bytes in a message, {MAX_MESSAGE_BYTES} are allowed"
        )


def _to_message(outcome: Outcome) -> pb.WorkRequest.Outcome:
    message = pb.WorkRequest.Outcome(
        job=pb.JobKey(id=outcome.job_id, retries=outcome.retries), failed=outcome.failed
    )
    values.to_value(outcome.result, message.result)
    return message
