"""Server reflection, in both of its versions.

grpcio-reflection has only v1alpha. v1 differs only in its package name, so the same servicer serves
it, with a descriptor made from that of v1alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

V1_NAME = "grpc.reflection.v1.ServerReflection"
_METHOD = "ServerReflectionInfo"


def add_reflection(server: grpc.aio.Server, service_names: Sequence[str]) -> None:
    """Add the reflection services to a server.

    Args:
        server: The server.
        service_names: Full names of its other services.
    """
    pool = descriptor_pool.Default()
    _add_v1_descriptor(pool)
    names = [*service_names, reflection.SERVICE_NAME, V1_NAME]
    aio: Any = reflection.aio  # type: ignore[attr-defined]  # not in the stubs
    servicer = aio.ReflectionServicer(names, _Pool(pool))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(V1_NAME, {_METHOD: handler}),)
    )


class _Pool:
    """A pool that also finds methods by name, as the pools of other languages do."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - the pool's own name
        """Return the file that defines a symbol.

        Raises:
            KeyError: No file defines it.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service_name, _, method = symbol.rpartition(".")
            service = self._pool.FindServiceByName(service_name)
            if method not in service.methods_by_name:
                raise
            return service.file


def _add_v1_descriptor(pool: descriptor_pool.DescriptorPool) -> None:
    v1 = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1)
    v1.name = v1.name.replace("v1alpha", "v1")
    v1.package = v1.package.replace("v1alpha", "v1")
    for message in v1.message_type:
        for field in message.field:
            # On a scalar field, even an empty type name would be an error.
            if field.type_name:
                field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for service in v1.service:
        for method in service.method:
            method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
            method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    pool.AddSerializedFile(v1.SerializeToString())
