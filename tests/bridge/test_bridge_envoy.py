"""The bridge responds like Envoy's grpc_json_transcoder with the same descriptors.

Both are in front of servers with the same history. Statuses are equal, and so is the JSON of
every response from the gRPC server. Their own refusals are the exception: Envoy's are
plain text, the bridge's are `google.rpc.Status` JSON, and only the statuses must be equal.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio
from bridge.envoy import envoy_serving
from bridge.envoy_cases import (
    DIFFERENCES,
    ECHO_BODIES,
    ECHO_PATHS,
    ECHO_QUERIES,
    STORY,
    Ask,
)
from bridge.fake import FakeMinion, handlers
from google.api import annotations_pb2  # type: ignore[import-untyped]  # has no py.typed
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion_rest_bridge.app import create_app
from minion_rest_bridge.rules import load_services, read_rules
from minion_server.http import HttpServer
from support.stack import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MINION_DESCRIPTORS = Path(__file__).parents[2] / "gen/minion/v1/minion.binpb"
OF_THE_MOMENT = ("uptime",)


@dataclass(frozen=True)
class Sides:
    """A client of the bridge and one of Envoy."""

    ours: httpx.AsyncClient
    envoys: httpx.AsyncClient

    async def ask(self, ask: Ask) -> tuple[httpx.Response, httpx.Response]:
        return await _send(self.ours, ask), await _send(self.envoys, ask)


async def _send(client: httpx.AsyncClient, ask: Ask) -> httpx.Response:
    headers = {} if ask.key is None else {"authorization": f"Bearer {ask.key}"}
    content = None
    if ask.body is not None:
        content = ask.body if isinstance(ask.body, str) else json.dumps(ask.body)
        if ask.content_type is not None:
            headers["content-type"] = ask.content_type
        if ask.encoding is not None:
            headers["content-encoding"] = ask.encoding
    # The target is sent as it is written here.
    return await client.request(
        ask.method,
        "/",
        content=content,
        headers=headers,
        extensions={"target": ask.target.encode()},
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sides(echo: ServiceDescriptor) -> AsyncIterator[Sides]:
    """Two servers with a store each, behind the bridge and behind Envoy."""
    if sys.platform != "linux":
        pytest.skip("Envoy is installed on Linux alone")
    services = [*load_services(), echo]
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mine = await stack.enter_async_context(serving(directory / "ours.db"))
        theirs = await stack.enter_async_context(serving(directory / "envoys.db"))
        echoing = grpc.aio.server()
        echoing.add_generic_rpc_handlers((handlers(echo, FakeMinion()),))
        echo_port = echoing.add_insecure_port("127.0.0.1:0")
        await echoing.start()
        stack.push_async_callback(echoing.stop, None)
        ports = dict.fromkeys((service.full_name for service in services), theirs)
        envoys = await stack.enter_async_context(
            envoy_serving(directory, _descriptors(echo), ports | {echo.full_name: echo_port})
        )
        addresses = []
        for port, served in ((mine, services[:-1]), (echo_port, [echo])):
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            )
            server = HttpServer(create_app(channel, services=served), ("127.0.0.1", 0))
            addresses.append(await server.start())
            stack.push_async_callback(server.stop, 1)
        bridge, echo_bridge = (httpx.AsyncHTTPTransport() for _ in addresses)
        ours = httpx.AsyncClient(
            base_url=f"http://{addresses[0]}", transport=_Split(bridge, echo_bridge, addresses)
        )
        yield Sides(await stack.enter_async_context(ours), envoys)


class _Split(httpx.AsyncBaseTransport):
    """Sends requests for Echo to a separate bridge."""

    def __init__(
        self, bridge: httpx.AsyncBaseTransport, echo: httpx.AsyncBaseTransport, hosts: Sequence[str]
    ) -> None:
        self._bridge, self._echo, self._hosts = bridge, echo, hosts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not request.extensions["target"].startswith(b"/echo"):
            return await self._bridge.handle_async_request(request)
        request.url = httpx.URL(f"http://{self._hosts[1]}/")
        return await self._echo.handle_async_request(request)

    async def aclose(self) -> None:
        await self._bridge.aclose()
        await self._echo.aclose()


def _descriptors(echo: ServiceDescriptor) -> bytes:
    """Return Envoy's descriptors: those of the contract and of Echo."""
    files = FileDescriptorSet.FromString(MINION_DESCRIPTORS.read_bytes())
    known = {file.name for file in files.file}

    def add(file: FileDescriptor) -> None:
        if file.name in known:
            return
        known.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        files.file.append(FileDescriptorProto.FromString(file.serialized_pb))

    add(echo.file)
    rule = files.file[-1].service[0].method[0].options.Extensions[annotations_pb2.http]
    # Envoy supports no variable after one of several segments, and refuses to start.
    kept = [each for each in rule.additional_bindings if "**}/" not in each.get]
    del rule.additional_bindings[:]
    rule.additional_bindings.extend(kept)
    return files.SerializeToString()


async def test_every_method_is_called() -> None:
    unary = {
        binding.method.name
        for binding in read_rules(load_services())
        if not binding.method.server_streaming
    }
    assert {ask.rpc for ask in STORY} == unary


async def test_the_story_gets_equal_responses(sides: Sides) -> None:
    successes: set[str] = set()
    refusals: set[str] = set()
    differing = []
    for ask in STORY:
        ours, envoys = await sides.ask(ask)
        differing += _differences(ask, ours, envoys)
        (successes if ours.status_code == 200 else refusals).add(ask.rpc)
    assert not differing, "\n".join(map(str, differing))
    assert successes == {ask.rpc for ask in STORY}
    assert refusals == {ask.rpc for ask in STORY}


async def test_values_are_read_and_written_alike(sides: Sides) -> None:
    asks = [Ask("Echo", "GET", f"/echo/get?{query}") for query in ECHO_QUERIES]
    asks += [Ask("Echo", "GET", path) for path in ECHO_PATHS]
    asks += [Ask("Echo", "PUT", "/echo/all", body) for body in ECHO_BODIES]
    differing = []
    for ask in asks:
        differing += _differences(ask, *await sides.ask(ask))
    assert not differing, "\n".join(map(str, differing))


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: str(each.ask))
async def test_differences_from_envoy_are_as_listed(sides: Sides, difference: Any) -> None:
    ours, envoys = await sides.ask(difference.ask)
    assert (ours.status_code, envoys.status_code) == (difference.ours, difference.envoys)


def _differences(ask: Ask, ours: httpx.Response, envoys: httpx.Response) -> list[Any]:
    """Return both responses if they differ."""
    shown = [(str(ask), *_shown(ours), *_shown(envoys))]
    if ours.status_code != envoys.status_code:
        return shown
    if envoys.headers.get("content-type") != "application/json":
        # Refused before it reached the server.
        is_alike = ours.status_code in (400, 404) and ours.json()["code"] in (3, 5)
        return [] if is_alike else shown
    mine, theirs = _parsed(ours), _parsed(envoys)
    return [] if mine == theirs and list(mine) == list(theirs) else shown


def _shown(response: httpx.Response) -> tuple[int, str | None, str]:
    return response.status_code, response.headers.get("content-type"), response.text


def _parsed(response: httpx.Response) -> Any:
    value = response.json()
    if isinstance(value, dict):
        for name in OF_THE_MOMENT:
            value.pop(name, None)
    return value


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
# json.dumps writes a whole number of this size as an integer literal, which is refused.
NUMBERS = DOUBLES.filter(lambda number: not number.is_integer() or abs(number) < 2**53)
STORABLE = TEXTS.filter(lambda text: "\0" not in text)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | STORABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STORABLE, inner, max_size=3),
    max_leaves=8,
)
OPTIONAL = {
    "int32Field": st.integers(-(2**31), 2**31 - 1),
    "int64Field": st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**63), 2**63 - 1).map(str),
    "uint64Field": st.integers(0, 2**64 - 1).map(str),
    "doubleField": DOUBLES,
    "boolField": st.booleans(),
    "text": TEXTS,
    "enumField": st.sampled_from(["COLOUR_UNSPECIFIED", "RED", 2, 5]),
    "maybe": st.integers(-(2**31), 2**31 - 1) | st.none(),
    "textList": st.lists(TEXTS, max_size=3),
    "counts": st.dictionaries(TEXTS, st.integers(-(2**63), 2**63 - 1), max_size=3),
    "time": st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
    "span": st.decimals(-(10**9), 10**9, places=9).map(lambda seconds: f"{seconds:f}s"),
    "object": st.dictionaries(STORABLE, VALUES, max_size=3),
    "jsonValue": VALUES,
    "jsonList": st.lists(VALUES, max_size=3),
    "wide": st.integers(-(2**63), 2**63 - 1),
    "flag": st.booleans() | st.none(),
}
MESSAGES = st.fixed_dictionaries({}, optional=OPTIONAL)


async def test_any_message_gets_equal_responses(sides: Sides, echo: ServiceDescriptor) -> None:
    messages: list[Any] = []

    @given(MESSAGES)
    @settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
    def collect(message: Any) -> None:
        messages.append(message)

    collect()
    everything = message_factory.GetMessageClass(echo.methods_by_name["Put"].input_type)
    for message in messages:
        body = json.dumps(message)
        ours, envoys = await sides.ask(Ask("Echo", "PUT", "/echo/all", body))
        assert (ours.status_code, envoys.status_code) == (200, 200), (body, ours.text, envoys.text)
        assert _differences(Ask("Echo", "PUT", "/echo/all", body), ours, envoys) == []
        # The response has the meaning of the request.
        sent = json_format.ParseDict(message, everything())
        assert json_format.Parse(ours.text, everything()) == sent, body
