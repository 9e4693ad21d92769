"""Takes jobs from a source, has them performed and reports what became of them."""

from __future__ import annotations

import asyncio
import logging
import signal
from asyncio import FIRST_COMPLETED
from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from minion_wire import sizes
from minion_wire.json_value import JsonValue, NotJsonError, plain_json

from minion_client._run.contain import containing
from minion_client._run.job_run import Execution, Listener
from minion_client._run.runner import Executor
from minion_client._run.verdict import WORKER_GONE
from minion_client._work.commands import Commander, CommandHandler
from minion_client._work.grpc_source import GrpcSource
from minion_client._work.reporter import Reporter
from minion_client._work.slots import Claim, Slots
from minion_client._work.waiting import defect, end_all, endless, first, pause
from minion_client.backoff import Backoff
from minion_client.endpoint import Endpoint, Tls
from minion_client.source import ClaimedJob, JobKey, JobSource, Outcome, SourceRefused
from minion_client.tasks import REGISTRY, Registry

_log = logging.getLogger(__name__)

_REVOKED = "Job was revoked"
_LAST_CALLS_SECONDS = 5.0
_MAX_UNDELIVERED = 1_000


class WorkerOptions(TypedDict, total=False):
    """What a worker can be told besides its source and its tasks (see `Worker`)."""

    queues: Sequence[str]
    jobs: int
    spare: int
    spare_min_priority: int
    limits: Mapping[str, int] | None
    heartbeat_interval: float
    dequeue_wait: float
    grace: float
    status: Mapping[str, JsonValue] | None
    backoff: Backoff | None
    executor: Executor | None


class Worker(Listener):
    """Performs the jobs of a source, as many at a time as it has slots.

    Args:
        source: Where jobs come from.
        registry: The tasks; those that are added later are not taken.
        queues: Queues to take jobs from.
        jobs: How many jobs of any priority to run at a time.
        spare: How many more to run of high priority.
        spare_min_priority: The lowest priority that is high.
        limits: How many jobs of a task to run at a time. While such a task is below its limit, one
            claim takes no more jobs than the limit leaves.
        heartbeat_interval: Seconds between two signs of life.
        dequeue_wait: Seconds that one call waits for jobs.
        grace: Seconds that running jobs get to end when the worker is stopped.
        status: What to tell about the worker besides these settings.
        backoff: How long to wait when the source is out of reach.
        executor: What performs the jobs; a new one for the registry if not given.

    Raises:
        ValueError: An argument is out of its range; the text names it.
    """

    def __init__(
        self,
        source: JobSource,
        registry: Registry,
        *,
        queues: Sequence[str] = ("default",),
        jobs: int = 4,
        spare: int = 1,
        spare_min_priority: int = 1,
        limits: Mapping[str, int] | None = None,
        heartbeat_interval: float = 15.0,
        dequeue_wait: float = 30.0,
        grace: float = 25.0,
        status: Mapping[str, JsonValue] | None = None,
        backoff: Backoff | None = None,
        executor: Executor | None = None,
    ) -> None:
        if isinstance(queues, str) or not queues:
            raise ValueError("queues must be a list of at least one name")
        _check_positive("heartbeat_interval", heartbeat_interval)
        _check_positive("dequeue_wait", dequeue_wait)
        if not grace >= 0:
            raise ValueError(f"grace must not be negative, not {grace}")
        self._source = source
        self._queues = tuple(queues)
        self._heartbeat_interval = heartbeat_interval
        self._dequeue_wait = dequeue_wait
        self._grace = grace
        self._backoff = backoff or Backoff()
        self._executor = executor or Executor(registry)
        self._slots = Slots(
            [task.name for task in registry],
            jobs=jobs,
            spare=spare,
            spare_min_priority=spare_min_priority,
            limits=limits or {},
        )
        self._settings = {
            **_checked_status(status or {}),
            "limits": dict(limits or {}),
            "queues": list(queues),
            "spare_min_priority": spare_min_priority,
            "tasks": sorted(task.name for task in registry),
            "type": "Python",
        }
        self._reporter = Reporter(
            source,
            backoff=self._backoff,
            max_note_bytes=sizes.longest_text(self._executor.bounds.max_json_bytes),
        )
        self._running: dict[JobKey, Execution] = {}
        self._revoked: set[JobKey] = set()
        self._performed = 0
        self._id: int | None = None
        self._registered = asyncio.Event()
        self._claim: tuple[Claim, asyncio.Task[Sequence[ClaimedJob]]] | None = None
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._heartbeat_due = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._commander = Commander(
            self, source, backoff=self._backoff, obeyed=self._heartbeat_due.set
        )

    @classmethod
    def connect(
        cls,
        target: str,
        registry: Registry = REGISTRY,
        *,
        key: str | None = None,
        tls: Tls = False,
        **options: Unpack[WorkerOptions],
    ) -> Worker:
        """Make a worker that takes its jobs from a server, over gRPC.

        It connects when it is run, and again whenever the connection is lost.

        Args:
            target: `HOST:PORT` of the server.
            registry: The tasks.
            key: The server's key.
            tls: Whether to use TLS, and whom to trust (see `minion_client.endpoint.Tls`).
            options: As the class takes them.

        Raises:
            ValueError: An argument is out of its range; the text names it.
        """
        endpoint = Endpoint(target=target, key=key, tls=tls)
        source = GrpcSource(endpoint, backoff=options.get("backoff"))
        return cls(source, registry, **options)

    @property
    def id(self) -> int | None:
        """The worker's id, once it is registered."""
        return self._id

    async def registered(self) -> int:
        """Wait until the worker is registered, and answer its id."""
        await self._registered.wait()
        assert self._id is not None, "it is set before"
        return self._id

    def stop(self) -> None:
        """Take no more jobs, give running ones the grace, then end; called again: end now.

        To be called on the worker's event loop. `run` returns when all is done.
        """
        if self._stopping.is_set():
            self._hurry.set()
            self._reporter.hurry()
        self._stopping.set()
        self._changed.set()
        self._withdraw_claim()

    def add_command(self, name: str, handler: CommandHandler) -> None:
        """Have the worker carry out a command of its own when it is broadcast.

        Args:
            name: Name of the command.
            handler: Called with the command's arguments on the worker's event loop; it may be a
                coroutine function, and the next command waits for it. TypeError and ValueError mean
                that the arguments are wrong.

        Raises:
            ValueError: The name is `jobs`, `spare`, `kill` or `stop`, which every worker knows.
        """
        self._commander.add(name, handler)

    def resize(self, *, jobs: int | None = None, spare: int | None = None) -> None:
        """Change how many jobs are run at a time; those that run are not stopped.

        With no slot at all the worker pauses.

        Raises:
            ValueError: A number is negative.
        """
        self._slots.resize(jobs=jobs, spare=spare)
        self._executor.resize(self._slots.total)
        self._changed.set()
        self._withdraw_claim()

    def signal_job(self, job_id: int, number: signal.Signals) -> None:
        """Send a signal to a job, if it runs here.

        A job in a process of its own gets the signal. Other jobs are stopped by INT, TERM and KILL.
        """
        for key, execution in list(self._running.items()):
            if key[0] == job_id:
                execution.send_signal(number)

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            ChildStartError: A child process could not import the tasks.
            SourceRefused: The source refuses the worker or what it asks for, as with a wrong key
                or a queue that can have no such name.
            ValueError: A plain function cannot be found by child processes.
        """
        with containing(asyncio.get_running_loop()):
            await self._run()

    async def _run(self) -> None:
        await self._executor.start(self._slots.total)
        try:
            registering = asyncio.create_task(self._register())
            await first(asyncio.wait((registering,)), self._stopping.wait())
            if registering.done():
                registering.result()
                await self._work()
            await end_all((registering,))
        finally:
            for execution in list(self._running.values()):
                execution.abandon(WORKER_GONE)
            await self._executor.stop()
            await self._source.close()

    async def _work(self) -> None:
        claiming = asyncio.create_task(self._take_jobs())
        loops = [
            claiming,
            asyncio.create_task(self._reporter.run()),
            asyncio.create_task(self._send_heartbeats()),
            asyncio.create_task(self._stop_revoked()),
            asyncio.create_task(self._commander.run()),
        ]
        try:
            await first(self._stopping.wait(), asyncio.wait(loops, return_when=FIRST_COMPLETED))
            for loop in loops:
                # Only a defect ends one before; then the worker must end too, and say why.
                if loop.done():
                    loop.result()
            await self._drain(claiming)
        finally:
            await end_all(loops)
        await self._unregister()

    # Claiming

    async def _take_jobs(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            claim = self._slots.next_claim()
            if claim is not None and claim.min_priority is not None:
                # Short jobs end in one turn of the loop and free ordinary slots.
                await asyncio.sleep(0)
                if self._stopping.is_set():
                    return
                claim = self._slots.next_claim()
            if claim is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            if self._reporter.undelivered > _MAX_UNDELIVERED:
                await first(self._reporter.delivered(), self._stopping.wait())
                continue
            try:
                jobs = await self._dequeue(claim)
            except ValueError as error:
                raise _refused(error) from error
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
                failures += 1
                if failures == 1:
                    _log.warning(
                        "cannot take jobs: %s; trying again", error, exc_info=defect(error)
                    )
                # It may be that the source has forgotten the worker.
                self._heartbeat_due.set()
                await pause(self._backoff.delay(failures), self._stopping)
                continue
            if failures:
                _log.info("Taking jobs again after %d failure(s)", failures)
                failures = 0
            self._perform(jobs)

    async def _dequeue(self, claim: Claim) -> Sequence[ClaimedJob]:
        """Ask for jobs; a call that is withdrawn may answer some nevertheless."""
        call = asyncio.ensure_future(
            self._source.dequeue(
                queues=self._queues,
                tasks=claim.tasks,
                min_priority=claim.min_priority,
                max_jobs=claim.max_jobs,
                wait=self._dequeue_wait,
            )
        )
        self._claim = (claim, call)
        try:
            # Not awaited itself: being withdrawn must not look as if the loop were cancelled.
            await asyncio.wait((call,))
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            self._claim = None
        if not call.cancelled():
            return call.result()
        if not call.cancelling():
            # Nobody here did it; asked again at once, the source might do the same for ever.
            raise ConnectionError("the source cancelled the call")
        return ()

    def _withdraw_claim(self) -> None:
        # Once: cancelled again, the call would not wait for what the source has taken.
        if self._claim is not None and not self._claim[1].cancelling():
            self._claim[1].cancel()

    def _perform(self, jobs: Sequence[ClaimedJob]) -> None:
        revoked, self._revoked = self._revoked, set()
        for job in jobs:
            key = (job.id, job.retries)
            if key in revoked:
                continue
            if key in self._running:
                _log.error("Job %d was given to this worker twice", job.id)
                continue
            execution = self._executor.execution(job, self)
            self._slots.take(job.task)
            self._running[key] = execution
            self._idle.clear()
            execution.start()

    # What executions tell

    def noted(self, execution: Execution, notes: Mapping[str, JsonValue]) -> None:
        """Take a job's notes."""
        self._reporter.note(execution.key, notes)

    def ended(self, execution: Execution, outcome: Outcome) -> None:
        """Take a job's outcome; its slot is free."""
        key = execution.key
        del self._running[key]
        self._executor.tidy(execution.job.task)
        self._slots.release(execution.job.task)
        self._performed += 1
        if execution.revoked:
            self._reporter.forget(key)
        else:
            self._reporter.end(outcome)
        if not self._running:
            self._idle.set()
        self._changed.set()
        if self._claim is not None and self._slots.outdates(self._claim[0]):
            self._withdraw_claim()

    # Background loops

    async def _stop_revoked(self) -> None:
        revoked = endless(self._source.revoked, "learn of revoked jobs", self._backoff)
        async for key in revoked:
            execution = self._running.get(key)
            if execution is not None:
                execution.revoked = True
                execution.stop(_REVOKED)
            elif self._claim is not None:
                # The claim that took the job may not have answered yet.
                self._revoked.add(key)

    async def _send_heartbeats(self) -> None:
        failures = 0
        while True:
            delay = self._heartbeat_interval
            if failures:
                delay = min(delay, self._backoff.delay(failures))
            await pause(delay, self._heartbeat_due)
            self._heartbeat_due.clear()
            failures = 0 if await self._beat(failures) else failures + 1

    async def _register(self) -> None:
        failures = 0
        while not await self._beat(failures):
            failures += 1
            await asyncio.sleep(self._backoff.delay(failures))

    async def _beat(self, failures: int) -> bool:
        try:
            worker_id = await self._source.register(
                {
                    **self._settings,
                    "jobs": self._slots.jobs,
                    "spare": self._slots.spare,
                    "performed": self._performed,
                }
            )
        except ValueError as error:
            raise _refused(error) from error
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
            if not failures:
                _log.warning("cannot register: %s; trying again", error, exc_info=defect(error))
            return False
        if worker_id != self._id:
            _log.info("Registered as worker %d", worker_id)
        self._id = worker_id
        self._registered.set()
        return True

    # The end

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        """End what runs and deliver what became of it."""

        async def ended() -> None:
            # A claim that is withdrawn may still answer jobs.
            await asyncio.wait((claiming,))
            await self._idle.wait()

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace
        await first(ended(), self._hurry.wait(), timeout=self._grace)
        for execution in list(self._running.values()):
            execution.stop(WORKER_GONE)
        await first(self._idle.wait(), timeout=self._executor.bounds.cancel_grace)
        for execution in list(self._running.values()):
            execution.abandon(WORKER_GONE)
        # A source that is out of reach may come back within the grace, but not keep this for ever.
        patience = max(deadline - loop.time(), _LAST_CALLS_SECONDS)
        await first(self._reporter.delivered(), self._hurry.wait(), timeout=patience)
        self._reporter.hurry()
        await first(self._reporter.delivered(), timeout=_LAST_CALLS_SECONDS)
        if self._reporter.undelivered:
            _log.error("could not deliver %d result(s): no answer", self._reporter.undelivered)

    async def _unregister(self) -> None:
        try:
            async with asyncio.timeout(_LAST_CALLS_SECONDS):
                await self._source.unregister()
        except Exception as error:  # noqa: BLE001 - the worker ends whatever the source says
            _log.warning("cannot unregister: %s", error)


def _refused(error: ValueError) -> SourceRefused:
    return error if isinstance(error, SourceRefused) else SourceRefused(str(error))


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, not {value}")


def _checked_status(status: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        return dict(plain_json(dict(status), limit=sizes.MAX_STATUS_BYTES))
    except NotJsonError as error:
        raise ValueError(f"status is not JSON: {error}") from None
