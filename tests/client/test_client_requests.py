"""Values that the clients refuse or leave out before sending."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from client.both_clients import connect
from minion_client import AsyncClient, Client, InvalidError, NewJob
from minion_client._api import calls

BIG = 2**70


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client without a server."""
    with connect(request.param, "127.0.0.1:1", timeout=5) as made:
        yield made


@pytest.mark.parametrize(
    ("method", "args", "options", "field"),
    [
        ("enqueue", ["x"], {"priority": 2**31}, "priority"),
        ("enqueue", ["x"], {"attempts": BIG}, "attempts"),
        ("enqueue", ["x"], {"parents": [1, BIG]}, "parents"),
        ("enqueue", ["\ud800"], {}, "task"),
        ("enqueue", ["x"], {"queue": "\ud800"}, "queue"),
        ("enqueue_many", [[NewJob(task="x", priority=BIG)]], {}, "requests[0].priority"),
        ("retry", [1], {"retries": BIG}, "retries"),
        ("list_jobs", [], {"ids": [BIG]}, "ids"),
        ("list_jobs", [], {"before": BIG}, "before"),
        ("list_jobs", [], {"queues": "default"}, "queues"),
        ("list_locks", [], {"names": "one"}, "names"),
        ("broadcast", ["jobs"], {"ids": [BIG]}, "ids"),
        ("broadcast", ["jobs"], {"ids": []}, "ids"),
        ("acquire_lock", ["\ud800", 1], {}, "name"),
        ("acquire_lock", ["x", 1], {"limit": BIG}, "limit"),
        ("acquire_lock", ["x", 0], {}, "duration"),
        ("acquire_lock", ["x", -1], {}, "duration"),
        ("acquire_lock", ["x", 1e-9], {}, "duration"),
        ("renew_lock", ["x", 1, 0], {}, "duration"),
        ("renew_lock", ["x", 0, 1], {}, "id"),
        ("release_lock", ["x"], {"lock_id": 0}, "id"),
        ("put_schedule", ["x", "* * * * *", "x"], {"priority": BIG}, "priority"),
        ("repair", [], {"stuck_after": float("inf")}, "stuck_after"),
    ],
)
def test_what_does_not_fit_is_named(
    client: Client, method: str, args: list[Any], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        list(getattr(client, method)(*args, **options))
    assert caught.value.field == field
    assert caught.value.code is None


@pytest.mark.parametrize("duration", [0, 0.0, -1, timedelta(0)])
def test_a_block_never_runs_without_its_lock(client: Client, duration: float | timedelta) -> None:
    with pytest.raises(InvalidError) as caught, client.lock("x", duration):
        pytest.fail("it holds nothing")
    assert caught.value.field == "duration"


def test_a_filter_without_values_selects_nothing(client: Client) -> None:
    assert list(client.list_jobs(ids=[])) == []
    assert list(client.list_jobs(tasks=(), queues=["default"])) == []
    assert list(client.list_jobs(notes=[])) == []
    assert list(client.list_workers(ids=[])) == []
    assert list(client.list_locks(names=[])) == []
    assert list(client.list_schedules(names=[])) == []


def test_the_defaults_of_a_task_are_left_to_the_server() -> None:
    request = calls.enqueue(NewJob(task="x")).request
    assert not request.HasField("priority")
    assert not request.HasField("attempts")
    request = calls.enqueue(NewJob(task="x", priority=0, attempts=1)).request
    assert request.HasField("priority")
    assert request.HasField("attempts")


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)
    for name in public(Client) - {"close"}:
        hints = [
            {k: v for k, v in vars(kind)[name].__annotations__.items() if k != "return"}
            for kind in (Client, AsyncClient)
        ]
        assert hints[0] == hints[1], name
        defaults = [vars(kind)[name].__kwdefaults__ for kind in (Client, AsyncClient)]
        assert defaults[0] == defaults[1], name
