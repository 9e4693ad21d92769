"""A gRPC server with services whose responses are set by a test, and a bridge for it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import google.api.http_pb2  # type: ignore[import-untyped]  # has no py.typed
import grpc.aio
import grpc_tools  # type: ignore[import-untyped]  # has no py.typed
import httpx
import pytest
from bridge.fake import FakeMinion, client_of, handlers
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_tools import protoc
from minion_rest_bridge.app import create_app
from minion_rest_bridge.rules import load_services
from minion_server.http import HttpServer
from minion_server.storage.sqlite import SqliteStorage
from starlette.applications import Starlette
from support.bench import SettableClock
from support.rpc_bench import rpc_server


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> ServiceDescriptor:
    """The service of echo.proto."""
    here = Path(__file__).parent
    target = tmp_path_factory.mktemp("echo") / "echo.binpb"
    # googleapis-common-protos and grpcio-tools contain the imported .proto files.
    common_protos = Path(google.api.http_pb2.__file__).parents[2]
    own_protos = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{here}",
            f"-I{common_protos}",
            f"-I{own_protos}",
            f"--descriptor_set_out={target}",
            str(here / "echo.proto"),
        ]
    )
    assert status == 0
    pool = descriptor_pool.Default()
    for file in FileDescriptorSet.FromString(target.read_bytes()).file:
        for imported in file.dependency:
            importlib.import_module(f"{imported.removesuffix('.proto').replace('/', '.')}_pb2")
        pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("bridge_test.Echo")


@pytest.fixture
def fake() -> FakeMinion:
    return FakeMinion()


@pytest.fixture
async def channel(fake: FakeMinion, echo: ServiceDescriptor) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server with the fake services and health."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        tuple(handlers(service, fake) for service in (*load_services(), echo))
    )
    add_HealthServicer_to_server(HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
def app(channel: grpc.aio.Channel, echo: ServiceDescriptor) -> Starlette:
    return create_app(channel, services=[*load_services(), echo])


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture(params=["local", "wire"])
async def address(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a bridge for a real server, in this process or over the network."""
    storage = SqliteStorage(tmp_path / "minion.db", clock=SettableClock())
    await storage.open()
    server = rpc_server(storage)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        app = create_app(server.channel if request.param == "local" else channel)
        http = HttpServer(app, ("127.0.0.1", 0))
        yield await http.start()
        await http.stop(0)
    await server.stop(0)
    await storage.close()
