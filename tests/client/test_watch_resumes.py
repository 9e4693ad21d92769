"""Watches whose streams are ended before the job, by a proxy or by the server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from client.both_clients import connect
from google.rpc import error_details_pb2, status_pb2
from minion.v1 import job_pb2
from minion.v1 import minion_service_pb2 as pb
from minion_client import Client, JobFailedError, MinionError

BROKEN = [
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
]


class Watched:
    """A server of one job, whose first streams send the active job and then an error.

    Attributes:
        code: Code of the error.
        details: Whether the error has details, like those of a Minion server.
        breaks: Number of these streams.
        streams: Number of all streams so far.
    """

    def __init__(self) -> None:
        self.code = grpc.StatusCode.UNAVAILABLE
        self.details = False
        self.breaks = 1
        self.streams = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        watch = grpc.unary_stream_rpc_method_handler(
            self._watch, pb.WatchJobRequest.FromString, pb.WatchJobResponse.SerializeToString
        )
        service = grpc.method_handlers_generic_handler(
            "minion.v1.MinionService", {"WatchJob": watch}
        )
        self._server.add_generic_rpc_handlers((service,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _watch(self, request: pb.WatchJobRequest, context: Any) -> Iterator[pb.WatchJobResponse]:
        self.streams += 1
        yield pb.WatchJobResponse(job=job_pb2.Job(id=request.id, task="t", state="active"))
        if self.streams > self.breaks:
            yield pb.WatchJobResponse(job=job_pb2.Job(id=request.id, task="t", state="failed"))
            return
        if self.details:
            status = status_pb2.Status(code=self.code.value[0], message="no")
            status.details.add().Pack(error_details_pb2.ErrorInfo(reason="NO"))
            details = (("grpc-status-details-bin", status.SerializeToString()),)
            context.set_trailing_metadata(details)
        context.abort(self.code, "no")


@pytest.fixture
def watched() -> Iterator[Watched]:
    server = Watched()
    yield server
    server.stop()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, watched: Watched) -> Iterator[Client]:
    with connect(request.param, watched.address) as made:
        yield made


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("code", BROKEN)
def test_a_stream_that_broke_on_its_way_is_followed_by_another(
    watched: Watched, client: Client, code: grpc.StatusCode, timeout: float | None
) -> None:
    watched.code, watched.breaks = code, 2
    with pytest.raises(JobFailedError):
        client.wait(7, timeout=timeout)
    assert watched.streams == 3


@pytest.mark.parametrize("code", [*BROKEN[:-1], grpc.StatusCode.NOT_FOUND])
def test_an_error_of_the_server_itself_ends_the_watch(
    watched: Watched, client: Client, code: grpc.StatusCode
) -> None:
    watched.code, watched.details = code, True
    with pytest.raises(MinionError) as caught:
        client.wait(7)
    assert (caught.value.code, caught.value.reason) == (code, "NO")
    assert watched.streams == 1


def test_the_callers_own_deadline_ends_it_however_the_stream_ended(
    watched: Watched, client: Client
) -> None:
    watched.code, watched.breaks = grpc.StatusCode.CANCELLED, 10**9
    with pytest.raises(TimeoutError, match="has not ended in time"):
        client.wait(7, timeout=0.5)
