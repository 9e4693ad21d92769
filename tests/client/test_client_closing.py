"""Calls that get no answer: for lack of time, or because the client is closed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from client.both_clients import connect
from minion_client import AsyncClient, Client, MinionError


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_closing_ends_the_calls_of_other_threads(silent: str) -> None:
    client = Client(silent)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.wait(1)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.1)
    client.close()
    thread.join(10)
    assert [type(error) for error in errors] == [MinionError]


async def test_closing_ends_the_calls_of_other_coroutines_but_cancels_nobody(silent: str) -> None:
    client = AsyncClient(silent)
    calls = [asyncio.create_task(client.wait(1)), asyncio.create_task(client.get(1))]
    await asyncio.sleep(0.1)
    await client.close()
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert type(error) is MinionError
        assert error.code is grpc.StatusCode.CANCELLED


async def test_a_coroutine_that_is_cancelled_is_cancelled(silent: str) -> None:
    async with AsyncClient(silent) as client:
        calls = [asyncio.create_task(client.wait(1)), asyncio.create_task(client.get(1))]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.get(1)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_closed_client_stays_closed(silent: str, kind: str) -> None:
    with connect(kind, silent) as client:
        client.close()
        client.close()
        for call in (client.stats, lambda: client.wait(1), lambda: list(client.list_jobs())):
            with pytest.raises(RuntimeError, match="the client is closed"):
                call()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_time_is_no_time(silent: str, kind: str) -> None:
    with connect(kind, silent, timeout=30) as client, pytest.raises(TimeoutError):
        client.cancel(1, timeout=0)
