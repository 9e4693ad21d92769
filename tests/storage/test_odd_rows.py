"""Rows that this server does not write, as in databases of Perl's Minion."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from minion.v1 import job_pb2, worker_pb2
from minion_server.domain.job import LONG_RESULT, Job, JobState, JsonValue, RetryOptions
from minion_server.domain.limits import MAX_SPAN, MAX_TIME, MIN_TIME
from minion_server.domain.lock import Lock
from minion_server.domain.policy import Retention
from minion_server.domain.schedule import NewSchedule, Schedule, ScheduleFilter
from minion_server.domain.worker import MAX_HEARTBEAT_SECONDS, Command, Registration, Worker
from minion_server.engine.explain import explain_job
from minion_server.engine.recovery import recover
from minion_server.rpc.convert import to_job_message
from minion_server.rpc.convert_workers import to_command_message
from minion_server.storage.postgresql import PostgresStorage, PostgresTransfer
from minion_server.storage.sqlite import SqliteTransfer
from minion_server.storage.transfer import LastIds, Record, WorkerRecord
from minion_wire.failure import JOB_UNFIT
from storage.test_transfer import NewPlace, Place, content, move, new_place, opened
from support.bench import Bench
from support.postgresql import PostgresServer
from support.raw_database import Database

__all__ = ["new_place"]

LONG = "x" * 300
NOW = 1_600_000_000.0

PLAIN_JOB = Job(
    args=[], attempts=1, children=[], created=NOW, delayed=NOW, expires=None, finished=None, id=1,
    lax=False, notes={}, parents=[], priority=0, queue="default", result=None, retried=None,
    retries=0, started=None, state=JobState.INACTIVE, task="foo", time=NOW, worker=None,
)  # fmt: skip
STUCK = replace(PLAIN_JOB, id=1, state=JobState.FAILED, result="Job appears stuck in queue")
NO_RESULT = replace(PLAIN_JOB, id=2, state=JobState.FINISHED, finished=NOW, started=NOW, worker=9)
OFTEN_RETRIED = replace(PLAIN_JOB, id=3, attempts=9, retries=3_060, priority=2**31 - 1)
NO_ATTEMPTS = replace(PLAIN_JOB, id=4, attempts=0, priority=2**30)
LONG_NAMES = replace(PLAIN_JOB, id=5, task=LONG, queue=LONG, priority=-(2**31), attempts=-7)
FAR_AWAY = replace(PLAIN_JOB, id=6, delayed=1e15, expires=2e15, created=-1e15)
ODD_PARENTS = replace(PLAIN_JOB, id=7, parents=[-1, 0, 2**63 - 1, 1], delayed=1e12)
NEVER_STARTED = replace(PLAIN_JOB, id=8, state=JobState.ACTIVE, worker=3)
JOBS = [
    STUCK, NO_RESULT, OFTEN_RETRIED, NO_ATTEMPTS, LONG_NAMES, FAR_AWAY, ODD_PARENTS, NEVER_STARTED,
]  # fmt: skip
# Of what the embedded database, which no other program writes, cannot hold.
IN_POSTGRESQL = pytest.mark.parametrize("bench", ["postgresql", "pgbouncer"], indirect=True)
LAST_IDS = LastIds(jobs=100, workers=100, locks=100, schedules=100)


async def of(*records: Record) -> AsyncIterator[Sequence[Record]]:
    yield records


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, new_place: NewPlace) -> Place:
    return await new_place(request.param)


def schedule(schedule_id: int, **fields: object) -> Schedule:
    plain = Schedule(
        id=schedule_id, name=f"s{schedule_id}", cron="* * * * *", task="foo", args=[], attempts=1,
        expire=None, lax=False, notes={}, priority=0, queue="default", paused=False, created=NOW,
        next_run=NOW, last_run=None, last_job=None,
    )  # fmt: skip
    return replace(plain, **fields)  # type: ignore[arg-type]  # the test knows


def worker(worker_id: int, **fields: object) -> WorkerRecord:
    plain = Worker(id=worker_id, host="h", pid=1, status={}, started=NOW, notified=NOW, jobs=[])
    return WorkerRecord(worker=replace(plain, **fields), inbox=[])  # type: ignore[arg-type]  # the test knows


async def test_odd_jobs_are_shown_performed_and_ended(place: Place) -> None:
    await place[1].write(of(*JOBS, worker(3, host=LONG, notified=4e9), LAST_IDS))
    async with opened(place) as bench:
        storage = bench.storage
        await storage.repair(Retention(stuck_after=MAX_SPAN))
        assert await bench.listed() == [8, 7, 6, 5, 4, 3, 1]
        worker_id = await bench.worker()
        assert await bench.claim_ids(worker_id) == [3, 4]
        assert await bench.fail(3, retries=3_060)
        assert await bench.fail(4)
        again = await bench.job(3)
        assert (again.attempts, again.retries, again.state) == (8, 3_061, JobState.INACTIVE)
        assert again.delayed == pytest.approx(again.time + MAX_SPAN.total_seconds(), abs=100)
        assert (await bench.job(4)).state == JobState.FAILED
        for job_id in await bench.listed():
            message = job_pb2.Job()
            to_job_message(await bench.job(job_id), message)
            # What has no JSON form would raise.
            assert message.created.ToJsonString()
            assert message.delayed.ToJsonString()
            explanation = await explain_job(storage, job_id)
            assert "1970" not in explanation.summary
        ended = await explain_job(storage, STUCK.id)
        assert ended.summary == "It failed."
        running = await explain_job(storage, NEVER_STARTED.id)
        assert running.summary == "Worker 3 has been running it."
        await storage.history()
        await storage.stats()


async def test_odd_jobs_arrive_as_they_were(place: Place, new_place: NewPlace) -> None:
    jobs = [replace(job, delayed=NOW, expires=None, created=NOW) for job in JOBS]
    await place[1].write(of(*jobs, LAST_IDS))
    async with opened(place) as bench:
        before = await content(bench.storage)
    for kind in ("sqlite", "postgresql"):
        target = await new_place(kind)
        await move(place[1], target[1])
        async with opened(target) as bench:
            assert await content(bench.storage) == before
            assert (await bench.job(1)).result == "Job appears stuck in queue"


async def test_a_job_that_nests_deeply_arrives(place: Place, new_place: NewPlace) -> None:
    args = orjson.loads("[" * 400 + '1.5, 1e17, -2.5e300, "1e17 \\"1e17"' + "]" * 400)
    await place[1].write(of(replace(PLAIN_JOB, args=args, notes={"n": args}), LAST_IDS))
    for kind in ("sqlite", "postgresql"):
        target = await new_place(kind)
        await move(place[1], target[1])
        async with opened(target) as bench:
            await bench.storage.note_job(1, {"m": 1})
            job = await bench.job(1)
            assert job.args == args
            assert job.notes == {"n": args, "m": 1}


async def test_times_that_postgresql_could_not_show_arrive_clamped(new_place: NewPlace) -> None:
    target = await new_place("postgresql")
    await target[1].write(of(FAR_AWAY, Lock(id=1, name="l", expires=1e300), LAST_IDS))
    async with opened(target) as bench:
        job = await bench.job(FAR_AWAY.id)
        assert (job.created, job.delayed, job.expires) == (MIN_TIME, MAX_TIME, MAX_TIME)


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("33658-01-01", MAX_TIME),
        ("infinity", MAX_TIME),
        ("0044-03-15 BC", MIN_TIME),
        ("-infinity", MIN_TIME),
    ],
)
async def test_a_time_of_postgresql_that_no_datetime_holds_spoils_no_list(
    postgresql: PostgresServer, new_place: NewPlace, time: str, shown: float
) -> None:
    name = await postgresql.make_database()
    url = postgresql.url(name)
    place = (lambda: PostgresStorage(url)), PostgresTransfer(url)
    job = replace(PLAIN_JOB, state=JobState.FAILED, finished=NOW)
    await place[1].write(of(job, worker(1), schedule(1), LAST_IDS))
    # As Perl Minion's functions do with a delay of 10 ** 12 seconds, and people with psql.
    tables = {
        "minion_jobs": ("created", "delayed", "expires", "finished", "retried", "started"),
        "minion_workers": ("started", "notified"),
        "minion_schedules": ("created", "last_run", "next_run"),
    }
    for table, columns in tables.items():
        changes = ", ".join(f"{column} = '{time}'" for column in columns)
        await postgresql.execute(f"UPDATE {table} SET {changes}", name)
    await postgresql.execute(
        "INSERT INTO minion_locks (name, expires) VALUES ('l', '33658-01-01')", name
    )
    target = await new_place("sqlite")
    await move(place[1], target[1])
    for one in (place, target):
        async with opened(one) as bench:
            assert await bench.listed() == [1]
            (lock,) = (await bench.storage.list_locks([], limit=9)).locks
            assert lock.expires == MAX_TIME
            (kept,) = (await bench.storage.list_schedules(ScheduleFilter(), limit=9)).schedules
            found = [await bench.job(1), *await bench.workers(), kept]
            for record, columns in zip(found, tables.values(), strict=True):
                assert {getattr(record, column) for column in columns} == {shown}
            due = await bench.storage.next_dispatch()
            assert due is not None
            assert (due > 0) == (shown == MAX_TIME)
            assert await bench.storage.pause_schedule("s1", paused=False)
            again = NewSchedule(name="s1", cron="* * * * *", task="foo")
            assert await bench.storage.put_schedule(again) == 1
            fired = await bench.storage.dispatch_schedules()
            assert len(fired) == (shown == MIN_TIME)
    await postgresql.drop_database(name)


@IN_POSTGRESQL
@pytest.mark.parametrize("time", ["33658-01-01", "infinity"])
async def test_a_job_of_a_time_that_never_comes_is_served(
    bench: Bench, database: Database, time: str
) -> None:
    job_id = await bench.enqueue()
    await database.execute(f"UPDATE minion_jobs SET delayed = '{time}', expires = '{time}'")
    worker_id = await bench.worker()
    assert await bench.claim_ids(worker_id) == []
    due = await bench.storage.stage_due()
    assert due is not None
    assert due > 0
    assert await bench.storage.retry_job(job_id, None, RetryOptions())
    assert await bench.claim_ids(worker_id) == [job_id]


@IN_POSTGRESQL
@pytest.mark.parametrize("time", ["0044-03-15 BC", "-infinity"])
async def test_a_worker_that_was_never_heard_is_forgotten(
    bench: Bench, database: Database, time: str
) -> None:
    await bench.worker()
    other = await bench.worker()
    await database.execute(f"UPDATE minion_workers SET notified = '{time}' WHERE id <> {other}")
    assert (await bench.storage.repair()).missing_workers == 1
    assert [worker.id for worker in await bench.workers()] == [other]


async def test_a_schedule_that_cannot_be_read_keeps_no_other_from_firing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {
        "attempts": schedule(1, attempts=0),
        "long": schedule(2, task=LONG, queue=LONG, name=LONG),
        "expired": schedule(3, expire=timedelta(seconds=-5)),
        "unreadable": schedule(4, cron="every now and then", next_run=NOW - 60),
        "never": schedule(5, cron="0 0 30 2 *"),
        "plain": schedule(6),
    }
    await place[1].write(of(*odd.values(), LAST_IDS))
    async with opened(place) as bench:
        fired = {one.id: one.job for one in await bench.storage.dispatch_schedules()}
        assert sorted(fired) == [1, 2, 3, 6]
        assert [record.args[0] for record in caplog.records] == ["s4", "s5"]  # type: ignore[index]  # a tuple
        assert (await bench.job(fired[1])).attempts == 0
        assert (await bench.job(fired[2])).queue == LONG
        # Neither again at once, nor never again: somebody may mend it.
        assert await bench.storage.dispatch_schedules() == []
        due = await bench.storage.next_dispatch()
        assert due is not None
        assert 0 < due <= 60


async def test_a_schedule_that_was_skipped_is_as_it_was_but_for_its_next_run(place: Place) -> None:
    unreadable = schedule(4, cron="every now and then", last_run=NOW - 3_600, last_job=77)
    await place[1].write(of(unreadable, LAST_IDS))
    async with opened(place) as bench:
        assert await bench.storage.dispatch_schedules() == []
        due = await bench.storage.next_dispatch()
        assert due == pytest.approx(3_600, abs=100)
    async with place[1].read() as records:
        (kept,) = [
            record async for batch in records for record in batch if isinstance(record, Schedule)
        ]
    assert replace(kept, next_run=NOW) == replace(unreadable, next_run=NOW)


class UncheckedCommand(Command):
    def __post_init__(self) -> None:
        pass


async def test_a_command_that_cannot_be_read_keeps_no_other_from_its_worker(
    place: Place, new_place: NewPlace
) -> None:
    good = Command(command="stop", args=[1])
    commands = [UncheckedCommand(command=LONG), UncheckedCommand(command=""), good]
    await place[1].write(of(WorkerRecord(worker=worker(1).worker, inbox=commands), LAST_IDS))
    target = await new_place("sqlite")
    await move(place[1], target[1])
    for one in (place, target):
        async with opened(one) as bench:
            assert await bench.storage.receive(1) == [good]
            assert await bench.storage.receive(1) == []


@pytest.mark.parametrize("interval", [3.6e10, 1e300])
async def test_a_heartbeat_interval_of_ages_stops_no_repair(
    bench: Bench, database: Database, interval: float
) -> None:
    odd = await bench.storage.register_worker(Registration(status={"heartbeat_interval": 1}))
    await database.execute(
        f"UPDATE {database.jobs.replace('jobs', 'workers')}"
        f""" SET status = '{{"heartbeat_interval": {interval}}}'"""
    )
    first, second = await bench.enqueue(), await bench.enqueue()
    assert await bench.claim_ids(odd, max_jobs=1) == [first]
    gone = await bench.worker()
    assert await bench.claim_ids(gone) == [second]
    bench.clock.advance(100)
    report = await bench.storage.repair()
    # The other worker's.
    assert report.abandoned_jobs == 1
    bench.clock.advance(6 * MAX_HEARTBEAT_SECONDS)
    await bench.storage.repair()
    assert {(await bench.job(one)).result for one in (first, second)} == {"Worker went away"}


@IN_POSTGRESQL
async def test_a_heartbeat_interval_that_was_kept_unbounded_stops_no_repair(
    bench: Bench, database: Database
) -> None:
    job_id = await bench.enqueue()
    worker_id = await bench.worker()
    await bench.claim(worker_id)
    await bench.storage.unregister_worker(worker_id)
    # As after a crash of the database, whose servers of before knew no bound.
    await database.execute(
        f"INSERT INTO minion_server_heartbeats VALUES ({worker_id}, 1e300);"
        " UPDATE minion_server_departures SET since = test_clock.now()"
    )
    bench.clock.advance(6 * MAX_HEARTBEAT_SECONDS)
    assert (await bench.storage.repair()).abandoned_jobs == 0
    bench.clock.advance(1)
    assert (await bench.storage.repair()).abandoned_jobs == 1
    assert (await bench.job(job_id)).state == JobState.FAILED


@IN_POSTGRESQL
async def test_an_abandoned_job_that_cannot_be_ended_keeps_no_other_from_it(
    bench: Bench, database: Database
) -> None:
    jobs = [await bench.enqueue() for _ in range(3)]
    worker_id = await bench.worker()
    assert await bench.claim_ids(worker_id) == jobs
    await bench.storage.unregister_worker(worker_id)
    await database.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN RAISE EXCEPTION USING ERRCODE = '22008', MESSAGE = 'no'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE OF state ON minion_jobs FOR EACH ROW
          WHEN (NEW.id = {jobs[1]}) EXECUTE FUNCTION refuse()
    """)
    report = await bench.storage.repair()
    assert report.abandoned_jobs == 2
    assert await bench.listed(states=[JobState.FAILED]) == [jobs[2], jobs[0]]


HUGE = '[1e400, -1e400, {"n": 1e400, "s": "[{\\"1e400", "i": 18446744073709551616}, 1.5]'
VERY_DEEP = "[" * 3_000 + "]" * 3_000


def nested(levels: int) -> str:
    return "[" * levels + "1.5" + "]" * levels


def check_huge(value: JsonValue) -> None:
    """Check the values read from `HUGE`: PostgreSQL writes its numbers in full."""
    high, low, entries, last = value
    assert (type(high), type(low), last) == (str, str, 1.5)
    assert (float(high), float(low)) == (math.inf, -math.inf)
    assert entries == {"n": high, "s": '[{"1e400', "i": 2.0**64}


async def test_numbers_out_of_range_are_read_as_text(bench: Bench, database: Database) -> None:
    odd, plain = await bench.enqueue(), await bench.enqueue()
    await database.execute(
        f"""UPDATE {database.jobs} SET args = '{HUGE}', notes = '{{"n": {HUGE}}}',"""
        f" result = '{HUGE}' WHERE id = {odd}"
    )
    job, _ = await bench.claim(await bench.worker(), max_jobs=9)
    check_huge(job.args)
    check_huge(job.notes["n"])
    await bench.storage.note_job(odd, {"m": 1})
    assert await bench.listed() == [plain, odd]
    check_huge((await bench.storage.get_job_status(odd)).result)
    # An outcome that needs a look at the whole job.
    assert await bench.finish(odd, result="x" * LONG_RESULT)
    found = await bench.job(odd)
    check_huge(found.notes["n"])
    message = job_pb2.Job()
    to_job_message(found, message)


@pytest.mark.parametrize("levels", [300, 600, 1_000, 3_000])
async def test_a_job_that_nests_too_deeply_fails_alone(
    bench: Bench, database: Database, levels: int
) -> None:
    deep, odd, plain = [await bench.enqueue(notes={"a": 1}) for _ in range(3)]
    await database.execute(
        f"UPDATE {database.jobs} SET args = '{nested(levels)}' WHERE id = {deep};"
        f"""UPDATE {database.jobs} SET notes = '{{"n": {nested(levels)}}}' WHERE id = {odd}"""
    )
    assert await bench.claim_ids(await bench.worker()) == [plain]
    assert await bench.listed(states=[JobState.FAILED]) == [odd, deep]
    for job_id in (deep, odd):
        assert str((await bench.job(job_id)).result).startswith(JOB_UNFIT)
        await bench.storage.note_job(job_id, {"m": 1})
        assert (await bench.storage.get_job_status(job_id)).notes["m"] == 1
        message = job_pb2.Job()
        to_job_message(await bench.job(job_id), message)


@IN_POSTGRESQL
async def test_a_job_that_cannot_be_failed_keeps_no_other_from_its_worker(
    bench: Bench, database: Database
) -> None:
    deep, plain = await bench.enqueue(), await bench.enqueue()
    await database.execute(f"""
        UPDATE minion_jobs SET args = '{VERY_DEEP}' WHERE id = {deep};
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN RAISE EXCEPTION USING ERRCODE = '22008', MESSAGE = 'no'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE OF state ON minion_jobs FOR EACH ROW
          WHEN (NEW.state = 'failed') EXECUTE FUNCTION refuse()
    """)
    assert await bench.claim_ids(await bench.worker()) == [plain]


@pytest.mark.parametrize("odd", [HUGE, VERY_DEEP, nested(900)], ids=["huge", "deep", "900"])
async def test_an_odd_status_or_command_stops_nothing(
    bench: Bench, database: Database, odd: str
) -> None:
    worker_id = await bench.worker()
    workers = database.jobs.replace("jobs", "workers")
    await database.execute(
        f"""UPDATE {workers} SET status = '{{"heartbeat_interval": {odd}}}',"""
        f""" inbox = '[["a", {odd}], ["b", 1]]'"""
    )
    assert [worker.id for worker in await bench.workers()] == [worker_id]
    commands = await bench.storage.receive(worker_id)
    assert [command.command for command in commands] == ["a", "b"]
    for command in commands:
        to_command_message(command, worker_pb2.Command())
    await recover(bench.storage, own_namespace=None)
    bench.clock.advance(100)
    report = await bench.storage.repair()
    assert report.missing_workers == 1


@pytest.mark.parametrize(
    "odd", [HUGE, VERY_DEEP, nested(900), nested(500)], ids=["huge", "deep", "900", "500"]
)
async def test_odd_values_are_copied(
    postgresql: PostgresServer, new_place: NewPlace, tmp_path: Path, odd: str
) -> None:
    name = await postgresql.make_database()
    url = postgresql.url(name)
    place = (lambda: PostgresStorage(url)), PostgresTransfer(url)
    await place[1].write(of(PLAIN_JOB, worker(1), schedule(1), LAST_IDS))
    notes = f"""'{{"n": {odd}}}'"""
    await postgresql.execute(
        f"UPDATE minion_jobs SET args = '{odd}', notes = {notes}, result = '{odd}';"
        f"""UPDATE minion_workers SET status = {notes}, inbox = '[["a", {odd}]]';"""
        f"UPDATE minion_schedules SET args = '{odd}', notes = {notes}",
        name,
    )
    target = await new_place("postgresql")
    await place[1].backup(tmp_path / "copy.db")
    backup = SqliteTransfer(tmp_path / "copy.db")
    await move(backup, target[1])
    async with opened(place) as one, opened(target) as other:
        assert await one.listed(notes=["n"]) == await other.listed(notes=["n"]) == [1]
        for bench in (one, other):
            assert [one.id for one in await bench.storage.dispatch_schedules()] == [1]
            assert (await bench.workers())[0].status["n"]
            job = await bench.job(1)
            if odd is HUGE:
                check_huge(job.args)
            elif odd == nested(500):
                assert job.args == orjson.loads(odd)


@IN_POSTGRESQL
async def test_an_active_job_of_no_worker_is_retried_and_repaired(
    bench: Bench, database: Database
) -> None:
    retried, left = await bench.enqueue(), await bench.enqueue()
    await database.execute("UPDATE minion_jobs SET state = 'active'")
    # As Perl Minion's retry does.
    await database.execute(
        f"UPDATE minion_jobs SET state = 'inactive', retries = 1 WHERE id = {retried}"
    )
    # The first repair finds that there is no such worker, which then has time to come back.
    await bench.storage.repair()
    bench.clock.advance(100)
    assert (await bench.storage.repair()).abandoned_jobs == 1
    assert (await bench.job(left)).result == "Worker went away"
    assert (await bench.job(retried)).state == JobState.INACTIVE
