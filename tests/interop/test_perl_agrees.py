"""The same random calls of Perl's own backend and ours: results and stored data agree."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.perl import PerlError, PerlMinion, require_perl
from support.postgresql import PostgresServer
from support.processes import MinionProcess

STEPS = 200
TASKS = ["add", "echo", "boom"]
VALUES = [None, 0, 1, -1.5, "x", "", [], {}, [1, [None, {"a": None}]], {"ü": {"b": 2**53 - 1}}]
TIMES = {
    "created", "delayed", "expires", "finished", "notified", "retried", "started", "time", "uptime",
    "epoch",
}  # fmt: skip
# Different on purpose (see docs/perl.md), or inherently.
DIFFERENT = {"delayed_jobs", "inactive_workers", "inactive_schedules", "pid", "schedules"}
# These return whether they had an effect, in different forms.
DID = {
    "broadcast", "fail_job", "finish_job", "lock", "note", "remove_job", "repair", "retry_job",
    "unlock", "unregister_worker",
}  # fmt: skip

Call = tuple[str, list[Any]]


class Caller:
    """Chooses verbs to call."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._jobs = 0
        self.active: list[tuple[int, int]] = []
        self.workers: list[int] = []

    def call(self) -> Call:
        """Return a verb and its arguments."""
        choices: dict[str, tuple[int, Callable[[], list[Any]]]] = {
            "enqueue": (12, self._enqueue),
            "register_worker": (
                2,
                lambda: [self._pick(None, *self.workers), {"status": {"a": []}}],
            ),
            "unregister_worker": (1, lambda: [self._worker()]),
            "finish_job": (6, self._end),
            "fail_job": (6, self._end),
            "retry_job": (5, self._retry),
            "remove_job": (2, lambda: [self._id()]),
            "note": (4, lambda: [self._id(), self._notes()]),
            "broadcast": (
                1,
                lambda: ["x", [1, {"a": None}], self._pick([], [self._worker()], [99])],
            ),
            "receive": (1, lambda: [self._worker()]),
            "lock": (3, lambda: [self._pick("l", "m"), self._pick(0, 100, 200, -5), self._limit()]),
            "unlock": (2, lambda: [self._pick("l", "m", "n")]),
            "list_locks": (1, lambda: [self._pick(0, 1), self._pick(1, 10), {}]),
            "list_jobs": (3, lambda: [0, self._pick(1, 5, 2_000), self._filter()]),
            "list_workers": (1, lambda: [0, 10, self._pick({}, {"before": 3}, {"ids": []})]),
            "stats": (2, list),
            "history": (1, list),
            "repair": (1, list),
        }
        if self.workers:
            choices["dequeue"] = 12, self._dequeue
        (verb,) = self._random.choices(list(choices), [weight for weight, _ in choices.values()])
        return verb, choices[verb][1]()

    def _pick(self, *values: Any) -> Any:
        return self._random.choice(values)

    def _id(self) -> int:
        job_id: int = self._pick(-1, 0, 99_999, *range(1, self._jobs + 1))
        return job_id

    def _worker(self) -> int:
        worker_id: int = self._pick(1, *self.workers)
        return worker_id

    def _limit(self) -> dict[str, int]:
        limit: dict[str, int] = self._pick({}, {"limit": 2}, {"limit": 3}, {"limit": 0})
        return limit

    def _notes(self) -> dict[str, Any]:
        keys = self._random.sample("abcd", self._random.randrange(4))
        return {key: self._pick(None, 0, "x", True) for key in keys}

    def _given(self, options: dict[str, Callable[[], Any]], chance: float) -> dict[str, Any]:
        return {name: make() for name, make in options.items() if self._random.random() < chance}

    def _options(self, job_id: int) -> dict[str, Any]:
        def parents() -> list[int]:
            ids = {self._id() for _ in range(self._random.randrange(4))}
            return sorted(ids - {job_id})

        return self._given(
            {
                "priority": lambda: self._random.randrange(-2, 3),
                "queue": lambda: self._pick("default", "other"),
                "attempts": lambda: self._random.randrange(1, 4),
                "delay": lambda: self._pick(0, 0, 500),
                "expire": lambda: self._pick(0, 900),
                "lax": lambda: self._pick(0, 1),
                "parents": parents,
            },
            0.3,
        )

    def _enqueue(self) -> list[Any]:
        self._jobs += 1
        notes = {key: value for key, value in self._notes().items() if value is not None}
        args = [self._pick(*VALUES) for _ in range(self._random.randrange(3))]
        return [self._pick(*TASKS, "none"), args, self._options(self._jobs) | {"notes": notes}]

    def _dequeue(self) -> list[Any]:
        options = self._given(
            {
                "queues": lambda: self._pick(["default"], ["other"], ["default", "other"], []),
                "min_priority": lambda: self._random.randrange(-2, 2),
                "id": lambda: max(1, self._id()),
            },
            0.3,
        )
        return [self._pick(*self.workers), 0, options]

    def _end(self) -> list[Any]:
        job_id, retries = self._pick(*self.active, (self._id(), 0))
        return [job_id, retries, self._pick(*VALUES)]

    def _retry(self) -> list[Any]:
        job_id = self._id()
        return [job_id, self._random.randrange(3), self._options(job_id)]

    def _filter(self) -> dict[str, Any]:
        return self._given(
            {
                "ids": lambda: [self._id() for _ in range(self._random.randrange(4))],
                "queues": lambda: self._pick(["default"], []),
                "states": lambda: self._pick(["inactive"], ["active", "failed"]),
                "tasks": lambda: ["add"],
                "notes": lambda: ["a", "b"],
                "before": lambda: self._random.randrange(self._jobs + 2),
            },
            0.2,
        )


def _plain(value: Any, name: str = "") -> Any:
    """Return a comparable value, with rounded times, and numbers equal to their text."""
    if name in TIMES and value is not None:
        ahead = float(value) - time.time()
        return "past" if ahead < 100 else round(ahead / 400)
    match value:
        case dict():
            return {key: _plain(item, key) for key, item in value.items() if key not in DIFFERENT}
        case list():
            items = [_plain(item) for item in value]
            return sorted(items) if name in {"children", "jobs"} and _are_ids(value) else items
        case bool() | int() | str():
            try:
                return float(value)
            except ValueError:
                return value
        case _:
            return value


def _are_ids(values: list[Any]) -> bool:
    return not any(isinstance(value, dict) for value in values)


def _result(minion: PerlMinion, verb: str, args: list[Any]) -> Any:
    try:
        result = minion(verb, *args)
    except PerlError:
        return "died"
    if verb in DID:
        return verb in {"repair", "unregister_worker"} or bool(result)
    if verb == "list_locks":
        _without_ids(result["locks"])
    if verb.startswith("list_") and not result[verb.removeprefix("list_")]:
        return "nothing"
    return _plain(result)


def _without_ids(locks: list[dict[str, Any]]) -> None:
    # Perl Minion before version 10.29 does not return them.
    for lock in locks:
        lock.pop("id", None)


def _kept(minion: PerlMinion) -> Iterator[tuple[str, Any]]:
    for kind in ("jobs", "workers", "locks"):
        entries = minion(f"list_{kind}", 0, 1_000, {})[kind]
        if kind == "locks":
            _without_ids(entries)
        yield kind, entries


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
@pytest.mark.parametrize("seed", range(3))
async def test_backends_agree(
    seed: int,
    store: str,
    serve: Callable[..., MinionProcess],
    perl: Callable[[str, str], PerlMinion],
    postgresql: PostgresServer,
) -> None:
    require_perl("Minion", "Mojo::Pg")
    theirs = perl("Pg", postgresql.url(await postgresql.make_database(), tcp=True))
    flags = ["--no-scheduler", "--repair-interval", "86400"]
    if store == "postgresql":
        flags += ["--database", postgresql.url(await postgresql.make_database(), tcp=True)]
    ours = perl("Rest", serve(*flags).url)
    caller, calls = Caller(seed), []
    for _ in range(STEPS):
        verb, args = caller.call()
        calls.append((verb, args))
        assert _result(ours, verb, args) == _result(theirs, verb, args), calls[-5:]
        kept = dict(_kept(theirs))
        assert _plain(dict(_kept(ours))) == _plain(kept), calls[-5:]
        caller.active = [
            (job["id"], job["retries"]) for job in kept["jobs"] if job["state"] == "active"
        ]
        caller.workers = [worker["id"] for worker in kept["workers"]]
