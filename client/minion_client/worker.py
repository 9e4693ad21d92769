"""`Worker`: takes jobs from a source, runs them and reports their outcomes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from minion_wire import sizes
from minion_wire.failure import WORKER_WENT_AWAY
from minion_wire.json_value import JsonValue, NotJsonError, plain_json

from minion_client._run.contain import containing
from minion_client._run.job_run import JobRun
from minion_client._run.runner import Runner
from minion_client._work.claimer import Claimer
from minion_client._work.commands import Commander, CommandHandler
from minion_client._work.grpc_source import GrpcSource
from minion_client._work.reporter import Reporter
from minion_client._work.slots import Slots
from minion_client._work.waiting import defect, end_all, endless, first, pause
from minion_client.backoff import Backoff
from minion_client.endpoint import Endpoint, Tls
from minion_client.source import ClaimedJob, JobKey, JobSource, Outcome, SourceRefused
from minion_client.tasks import REGISTRY, Registry

_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
"""Default time between two heartbeats."""
_LAST_CALLS_SECONDS = 5.0


class WorkerOptions(TypedDict, total=False):
    """Options of `Worker.connect` (see `Worker`)."""

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
    modules: Sequence[str] | None


class Worker:
    """Claims jobs from a source and runs them concurrently. Each worker can be run once.

    Args:
        source: Where the jobs come from.
        registry: The tasks; jobs of tasks that are added later are not claimed.
        queues: Queues to claim jobs from.
        jobs: Maximum number of running jobs of any priority.
        spare: Maximum number of additional running jobs of high priority.
        spare_min_priority: The lowest priority that is high.
        limits: Maximum number of running jobs by task. While such a task is below its limit, a
            claim is at most as large as the rest of the limit.
        heartbeat_interval: Seconds between two heartbeats.
        dequeue_wait: Seconds that one claim waits for jobs.
        grace: Seconds that running jobs get to end when the worker is stopped.
        status: Status to report in addition to these settings.
        backoff: Delays between attempts while the source cannot be reached.
        modules: Names of the modules that worker processes import; by default, those in which the
            registry's plain functions are defined.
        runner: Runs the jobs, for tests.

    Raises:
        ValueError: An argument is out of range; the text names it.
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
        heartbeat_interval: float = HEARTBEAT_SECONDS,
        dequeue_wait: float = 30.0,
        grace: float = 25.0,
        status: Mapping[str, JsonValue] | None = None,
        backoff: Backoff | None = None,
        modules: Sequence[str] | None = None,
        runner: Runner | None = None,
    ) -> None:
        if isinstance(queues, str) or not queues:
            raise ValueError(f"queues: expected a list of at least one name, got {queues!r}")
        for name, seconds in {
            "heartbeat_interval": heartbeat_interval,
            "dequeue_wait": dequeue_wait,
        }.items():
            if not seconds > 0:
                raise ValueError(f"{name}: expected more than 0 seconds, got {seconds}")
        if not grace >= 0:
            raise ValueError(f"grace: expected 0 seconds or more, got {grace}")
        self._source = source
        self._heartbeat_interval = heartbeat_interval
        self._grace = grace
        self._backoff = backoff or Backoff()
        self._runner = runner or Runner(registry, modules=modules)
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
            max_note_bytes=sizes.longest_text(self._runner.limits.max_json_bytes),
        )
        self._heartbeat_due = asyncio.Event()
        self._claimer = Claimer(
            source=source,
            slots=self._slots,
            reporter=self._reporter,
            queues=tuple(queues),
            wait=dequeue_wait,
            backoff=self._backoff,
            claimed=self._start_runs,
            # The source may have forgotten the worker.
            failed=self._heartbeat_due.set,
        )
        self._commander = Commander(
            self, source, backoff=self._backoff, carried_out=self._heartbeat_due.set
        )
        self._running: dict[JobKey, JobRun] = {}
        self._revoked: set[JobKey] = set()
        self._performed = 0
        self._id: int | None = None
        self._registered = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()

    @classmethod
    def connect(
        cls,
        target: str | Endpoint,
        registry: Registry = REGISTRY,
        *,
        key: str | None = None,
        tls: Tls = False,
        **options: Unpack[WorkerOptions],
    ) -> Worker:
        """Create a worker for a server, over gRPC.

        `run` connects, and connects again whenever the connection is lost.

        Args:
            target: `HOST:PORT` of the server; or an `Endpoint`, with its key and TLS.
            registry: The tasks.
            key: The server's key.
            tls: Whether to use TLS, and which authorities to trust (see
                `minion_client.endpoint.Tls`).
            options: Other arguments of the class.
        """
        if isinstance(target, str):
            target = Endpoint(target=target, key=key, tls=tls)
        source = GrpcSource(target, backoff=options.get("backoff"))
        return cls(source, registry, **options)

    @property
    def id(self) -> int | None:
        """The worker's id, once it is registered."""
        return self._id

    async def registered(self) -> int:
        """Wait until the worker is registered, and return its id."""
        await self._registered.wait()
        assert self._id is not None, "it is set before"
        return self._id

    def stop(self) -> None:
        """Stop claiming jobs, and end after the running ones or the grace; a second call ends now.

        Call this on the worker's event loop. `run` returns when the worker has ended.
        """
        if self._stopping.is_set():
            self._stop_now.set()
            self._reporter.end_retries()
        self._stopping.set()
        self._claimer.stop()

    def add_command(self, name: str, handler: CommandHandler) -> None:
        """Add a custom command, which clients send by `Client.broadcast`.

        The handler, a function or a coroutine function, is called with the command's arguments on
        the worker's event loop; the next command waits for it. TypeError and ValueError mean that
        the arguments are wrong.

        Raises:
            ValueError: The name is that of a built-in command: `jobs`, `spare`, `kill` or `stop`.
        """
        self._commander.add(name, handler)

    def resize(self, *, jobs: int | None = None, spare: int | None = None) -> None:
        """Change the number of slots, without stopping jobs; without slots the worker pauses.

        Raises:
            ValueError: A number is negative.
        """
        self._slots.resize(jobs=jobs, spare=spare)
        self._runner.resize(self._slots.total)
        self._claimer.renew()

    def signal_job(self, job_id: int, number: signal.Signals) -> None:
        """Send a signal to the process of a job, if the job runs here.

        Jobs without a process of their own are stopped by INT, TERM and KILL.
        """
        for key, run in list(self._running.items()):
            if key[0] == job_id:
                run.send_signal(number)

    async def run(self) -> None:
        """Run the worker until it is stopped.

        Raises:
            ChildStartError: A child process could not import the tasks.
            SourceRefused: The source refuses the worker, for example for a wrong key or an invalid
                queue name.
            ValueError: Child processes cannot find a plain function.
        """
        with containing(asyncio.get_running_loop()):
            await self._run()

    async def _run(self) -> None:
        await self._runner.start(self._slots.total)
        try:
            registering = asyncio.create_task(self._register())
            await first(asyncio.wait((registering,)), self._stopping.wait())
            if registering.done():
                registering.result()
                await self._work()
            await end_all((registering,))
        finally:
            for run in list(self._running.values()):
                run.abandon(WORKER_WENT_AWAY)
            await self._runner.stop()
            await self._source.close()

    async def _work(self) -> None:
        claiming = asyncio.create_task(self._claimer.run())
        others = (self._reporter, self._commander)
        loops = [claiming, *(asyncio.create_task(other.run()) for other in others)]
        loops.append(asyncio.create_task(self._send_heartbeats()))
        loops.append(asyncio.create_task(self._stop_revoked()))
        try:
            await first(
                self._stopping.wait(), asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            )
            for loop in loops:
                if loop.done():  # by a refusal or a defect
                    loop.result()
            await self._drain(claiming)
        finally:
            await end_all(loops)
        await self._unregister()

    # Jobs

    def _start_runs(self, jobs: Sequence[ClaimedJob]) -> None:
        revoked, self._revoked = self._revoked, set()
        for job in jobs:
            key = (job.id, job.retries)
            if key in revoked:
                continue
            if key in self._running:
                _log.error("Job %d was given to this worker twice", job.id)
                continue
            run = self._runner.make_run(job, self)
            self._slots.take(job.task)
            self._running[key] = run
            self._idle.clear()
            run.start()

    def noted(self, run: JobRun, notes: Mapping[str, JsonValue]) -> None:
        """Report a job's notes; called by its run."""
        self._reporter.note(run.key, notes)

    def ended(self, run: JobRun, outcome: Outcome) -> None:
        """Report a job's outcome and free its slot; called by its run."""
        del self._running[run.key]
        self._runner.tidy(run.job.task)
        self._slots.release(run.job.task)
        self._performed += 1
        if run.revoked:
            self._reporter.forget(run.key)
        else:
            self._reporter.end(outcome)
        if not self._running:
            self._idle.set()
        self._claimer.slot_freed()

    async def _stop_revoked(self) -> None:
        revoked = endless(self._source.revoked, "receive revocations", self._backoff)
        async for key in revoked:
            run = self._running.get(key)
            if run is not None:
                run.revoked = True
                run.stop("Job was revoked")
            elif self._claimer.claiming:
                # The claim in progress may return this job.
                self._revoked.add(key)

    # Heartbeats

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
        slots = {"jobs": self._slots.jobs, "spare": self._slots.spare}
        try:
            worker_id = await self._source.register(
                {**self._settings, **slots, "performed": self._performed}
            )
        except ValueError as error:
            raise SourceRefused.of(error) from error
        except Exception as error:  # noqa: BLE001 - the worker continues after any error
            if not failures:
                _log.warning("cannot register: %s; trying again", error, exc_info=defect(error))
            return False
        if worker_id != self._id:
            _log.info("Registered as worker %d", worker_id)
        self._id = worker_id
        self._registered.set()
        return True

    # Shutdown

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        """End the running jobs and deliver their outcomes."""

        async def ended() -> None:
            # A withdrawn claim may still return jobs.
            await asyncio.wait((claiming,))
            await self._idle.wait()

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace
        await first(ended(), self._stop_now.wait(), timeout=self._grace)
        for run in list(self._running.values()):
            run.stop(WORKER_WENT_AWAY)
        await first(self._idle.wait(), timeout=self._runner.limits.cancel_grace)
        for run in list(self._running.values()):
            run.abandon(WORKER_WENT_AWAY)
        # An outage of the source may end within the grace; do not wait longer.
        patience = max(deadline - loop.time(), _LAST_CALLS_SECONDS)
        await first(self._reporter.delivered(), self._stop_now.wait(), timeout=patience)
        self._reporter.end_retries()
        await first(self._reporter.delivered(), timeout=_LAST_CALLS_SECONDS)
        if self._reporter.undelivered:
            _log.error("could not deliver %d result(s): no response", self._reporter.undelivered)

    async def _unregister(self) -> None:
        try:
            async with asyncio.timeout(_LAST_CALLS_SECONDS):
                await self._source.unregister()
        except Exception as error:  # noqa: BLE001 - the worker ends in any case
            _log.warning("cannot unregister: %s", error)


def _checked_status(status: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        return dict(plain_json(dict(status), limit=sizes.MAX_STATUS_BYTES))
    except NotJsonError as error:
        raise ValueError(f"status is not JSON: {error}") from None
