"""Calls without a response: after a deadline, or because the client is closed."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import grpc
import pytest
from client.both_clients import connect
from minion_client import AsyncClient, Client, MinionError


class Silent:
    """A server that never sends anything."""

    def __init__(self, listener: socket.socket) -> None:
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        self._connections: list[socket.socket] = []

    def called(self) -> None:
        """Wait until a client has connected for its first call."""
        connection, _ = self._listener.accept()
        self._connections.append(connection)
        assert connection.recv(1)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        server = Silent(listener)
        yield server
        server.close()


def test_closing_ends_the_calls_of_other_threads(silent: Silent) -> None:
    client = Client(silent.address)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.wait(1)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    silent.called()
    client.close()
    thread.join(10)
    assert [type(error) for error in errors] == [MinionError]


async def test_closing_ends_the_calls_of_other_coroutines_without_cancelling_them(
    silent: Silent,
) -> None:
    client = AsyncClient(silent.address)
    calls = [asyncio.create_task(client.wait(1)), asyncio.create_task(client.get(1))]
    await asyncio.to_thread(silent.called)
    await client.close()
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert type(error) is MinionError
        assert error.code is grpc.StatusCode.CANCELLED


async def test_a_coroutine_that_is_cancelled_is_cancelled(silent: Silent) -> None:
    async with AsyncClient(silent.address) as client:
        calls = [asyncio.create_task(client.wait(1)), asyncio.create_task(client.get(1))]
        await asyncio.to_thread(silent.called)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.get(1)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_closed_client_stays_closed(silent: Silent, kind: str) -> None:
    with connect(kind, silent.address) as client:
        client.close()
        client.close()
        for call in (client.stats, lambda: client.wait(1), lambda: list(client.list_jobs())):
            with pytest.raises(RuntimeError, match="the client is closed"):
                call()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_time_is_no_time(silent: Silent, kind: str) -> None:
    with connect(kind, silent.address, timeout=30) as client, pytest.raises(TimeoutError):
        client.cancel(1, timeout=0)
