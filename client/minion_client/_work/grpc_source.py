"""`GrpcSource`: a server as the source of a worker's jobs, over gRPC."""

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

from minion_client._work.outbox import MAX_REPORT_BYTES, Delivery, Outbox, check_size
from minion_client._work.waiting import first, is_outage
from minion_client._work.work_call import Demand, SentCommand, TakenJob, WorkCall, WorkState
from minion_client.backoff import Backoff
from minion_client.endpoint import Endpoint
from minion_client.errors import InvalidError, from_rpc_error
from minion_client.source import MAX_CLAIM, JobKey, Outcome, SourceRefused

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 20.0
# Permanent before the first welcome. Later they can be temporary (a key that is being changed, a
# proxy without a server), and the worker may have results to deliver.
_FATAL_AT_FIRST = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class GrpcSource:
    """A server as a job source, over `WorkerService.Work` (see `JobSource`).

    A broken call is replaced by a new one, until `close`. Demands, outcomes and notes wait for it,
    and are sent again if they were not acknowledged. For use on one event loop.

    Args:
        endpoint: The server.
        backoff: Delays between calls, limited to a quarter of the server's `missing_after`.
        clock: Returns the seconds of a monotonic clock.
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
        """Register the worker, or send its status; wait for the server without a limit."""
        if self._refusal is not None:
            raise self._refusal
        state = self._state
        state.status, state.status_due = status, True
        check_size("status: ", state.hello().ByteSize())
        state.wake.set()
        if self._calling is None or self._calling.done():
            self._calling = asyncio.create_task(self._keep_calling(), name="minion-work-calls")
            self._calling.add_done_callback(self._stopped_calling)
        await first(asyncio.wait((self._calling,)), self._connected.wait())
        if self._calling.done():
            self._calling.result()
            raise ConnectionError("the worker has disconnected")
        assert state.worker_id is not None, "the welcome has it"
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
        """End the call, if there is one; for the server, the worker may reconnect."""
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
        if self._refusal is not None:
            raise self._refusal
        self._check_calling()
        if not 1 <= max_jobs <= MAX_CLAIM:
            raise ValueError(f"max_jobs: must be in 1..{MAX_CLAIM}, not {max_jobs}")
        message = pb.WorkRequest.Demand(
            credits=max_jobs, queues=queues, tasks=tasks, min_priority=min_priority
        )
        check_size("tasks: ", message.ByteSize())
        demand = Demand(message=message, jobs=asyncio.get_running_loop().create_future())
        assert self._state.demand is None, "one at a time"
        self._state.demand = demand
        self._state.wake.set()
        try:
            await asyncio.wait((demand.jobs,), timeout=wait)
            self._withdraw(demand)
            await asyncio.wait((demand.jobs,))
        except asyncio.CancelledError:
            # The server may have sent jobs already.
            if jobs := await self._late_jobs(demand):
                return jobs
            raise
        return demand.jobs.result()

    async def report(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        deliveries: list[Delivery] = []
        batch: list[pb.WorkRequest.Outcome] = []
        size = 0
        for outcome in outcomes:
            message = pb.WorkRequest.Outcome(
                job=pb.JobKey(id=outcome.job_id, retries=outcome.retries), failed=outcome.failed
            )
            values.to_value(outcome.result, message.result)
            more = message.ByteSize()
            if batch and size + more > MAX_REPORT_BYTES:
                deliveries.append(Delivery(outcomes=batch, size=size))
                batch, size = [], 0
            batch.append(message)
            size += more
        deliveries.append(Delivery(outcomes=batch, size=size))
        return await self._deliver(deliveries)

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        message = pb.WorkRequest.Notes(id=job_id)
        values.to_struct(notes, message.notes)
        await self._deliver([Delivery(notes=[message], size=message.ByteSize())])

    async def revoked(self) -> JobKey:
        return await self._state.revoked.get()

    async def commanded(self) -> SentCommand:
        return await self._state.commands.get()

    async def _deliver(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        self._check_calling()
        for delivery in deliveries:
            self._state.outbox.post(delivery)
        self._state.wake.set()
        accepted = await asyncio.gather(*(delivery.accepted for delivery in deliveries))
        return [one for some in accepted for one in some]

    def _withdraw(self, demand: Demand) -> None:
        """Withdraw a demand, unless its jobs have arrived."""
        if demand.jobs.done():
            return
        demand.withdrawn = True
        if demand.sent:
            self._state.wake.set()
        else:
            self._state.end_demand()

    async def _late_jobs(self, demand: Demand) -> Sequence[TakenJob]:
        """Withdraw a demand, and return jobs that the server sent before it knew."""
        self._withdraw(demand)
        try:
            await asyncio.wait((demand.jobs,))
        except asyncio.CancelledError:
            # The jobs have no receiver and must not be held.
            demand.jobs.cancel()
            raise
        return demand.jobs.result()

    # Calls

    async def _keep_calling(self) -> None:
        """Replace broken calls, until the worker has disconnected.

        Raises:
            SourceRefused: The server refuses the worker or its claim.
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
                problem += str(error) or "no response"
            else:
                if self._state.closing:
                    return
                problem = f"the server at {self._endpoint.target} is shutting down"
            self._failures += 1
            if self._failures == 1 or problem != warned:
                _log.warning("%s; trying again", problem)
                warned = problem
            # Soon enough that the server does not consider the worker missing.
            longest = self._state.missing_after / 4
            await asyncio.sleep(min(self._backoff.delay(self._failures), longest))

    def _problem(self, error: grpc.aio.AioRpcError) -> str:
        """Return the reason why a call failed.

        Raises:
            SourceRefused: The next call would fail too.
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
        state = self._state
        # A new channel has a new connection: the old one may be broken.
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
                # A call that ends right after its welcome counts as a failure.
                self._failures = 0
            self._connected.clear()
            state.call_ended()
            await channel.close(None)

    def _stopped_calling(self, calling: asyncio.Task[None]) -> None:
        """Fail everything that waits for a response: there will be no other call."""
        reason = None if calling.cancelled() else calling.exception()
        if calling.cancelled():
            error = ConnectionError("the source is closed")
        else:
            error = ConnectionError(str(reason or "the worker has disconnected"))
        # Not a SourceRefused: the outcomes themselves are not refused.
        self._state.outbox.fail(error)
        if isinstance(reason, SourceRefused):
            self._refusal = reason
        demand, self._state.demand = self._state.demand, None
        if demand is not None and not demand.jobs.done():
            demand.jobs.set_exception(self._refusal or error)

    def _check_calling(self) -> None:
        if self._calling is None or self._calling.done():
            raise ConnectionError("the worker is not registered")
