"""Calls whose responses are lost: repeated only where that is safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli.conftest import Ran
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from minion_rest_bridge.rules import load_services
from minion_server.cli.main import main
from support.processes import MinionProcess


class Forgetful:
    """A server of all methods that loses responses.

    Attributes:
        requests: The requests, by method.
        lost: Which responses of each method are lost.
        target: Its address.
    """

    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = {}
        self.lost: Collection[int] = {1}
        self._server = grpc.server(ThreadPoolExecutor(2))
        for service in load_services():
            handlers = {
                method.name: self._handler(method)
                for method in service.methods
                if not method.client_streaming and not method.server_streaming
            }
            handler = grpc.method_handlers_generic_handler(service.full_name, handlers)
            self._server.add_generic_rpc_handlers((handler,))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _handler(self, method: MethodDescriptor) -> Any:
        request_type, response_type = map(GetMessageClass, (method.input_type, method.output_type))

        def take(request: Any, context: grpc.ServicerContext) -> Any:
            taken = self.requests.setdefault(method.name, [])
            taken.append(request)
            if len(taken) in self.lost:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the response is lost")
            return response_type()

        return grpc.unary_unary_rpc_method_handler(
            take,
            request_deserializer=request_type.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def forgetful() -> Iterator[Forgetful]:
    server = Forgetful()
    yield server
    server.stop()


def run(forgetful: Forgetful, capfd: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    status = main([*arguments, "--target", forgetful.target, "--api-key", "k"])
    captured = capfd.readouterr()
    return Ran(status, captured.out, captured.err)


@pytest.mark.parametrize("given", [[], ["--request-id", "mine"]])
def test_a_job_whose_response_is_lost_is_enqueued_by_the_same_request(
    forgetful: Forgetful, capfd: pytest.CaptureFixture[str], given: list[str]
) -> None:
    assert run(forgetful, capfd, "job", "enqueue", "echo", *given).status == 0
    assert run(forgetful, capfd, "job", "enqueue", "echo", *given).status == 0
    ids = Counter(request.request_id for request in forgetful.requests["EnqueueJob"])
    # Each command has an id of its own, if none is given.
    assert sorted(ids.values()) == ([3] if given else [1, 2])
    assert all(ids)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("RetryJob", ["job", "retry", "1"]),
        ("CancelJob", ["job", "cancel", "1"]),
        ("RemoveJob", ["job", "remove", "1"]),
        ("AcquireLock", ["lock", "acquire", "l"]),
        ("ReleaseLock", ["lock", "release", "l"]),
        ("BroadcastCommand", ["admin", "broadcast", "stop"]),
        ("Repair", ["admin", "repair"]),
        ("Reset", ["admin", "reset", "--locks", "--yes"]),
        ("DeleteSchedule", ["schedule", "delete", "s"]),
        ("DispatchSchedules", ["schedule", "dispatch"]),
    ],
)
def test_a_call_that_may_have_been_carried_out_is_not_repeated(
    forgetful: Forgetful, capfd: pytest.CaptureFixture[str], method: str, arguments: list[str]
) -> None:
    refused = run(forgetful, capfd, *arguments)
    assert refused.status == 2
    assert "the response is lost" in refused.err
    assert len(forgetful.requests[method]) == 1


def test_a_lock_that_may_have_been_acquired_is_not_waited_for(
    forgetful: Forgetful, capfd: pytest.CaptureFixture[str]
) -> None:
    forgetful.lost = {2}
    refused = run(forgetful, capfd, "lock", "acquire", "l", "--wait", "1m")
    assert refused.status == 2
    assert "the response is lost" in refused.err
    assert len(forgetful.requests["AcquireLock"]) == 2


def test_a_bridge_repeats_no_request_of_a_client_that_gave_it_no_id(
    forgetful: Forgetful, tmp_path: Path
) -> None:
    bridge = MinionProcess(
        tmp_path, "bridge", "--target", forgetful.target, "--http-listen", "127.0.0.1:0"
    )
    try:
        assert bridge.post("/v1/jobs", json={"task": "echo"}).status_code == 503
        assert bridge.post("/api/minion/echo/queue?args=[]").status_code == 200
        assert len(forgetful.requests["EnqueueJob"]) == 2
        # Safe calls are still repeated.
        assert bridge.get("/v1/stats").status_code == 200
        assert len(forgetful.requests["GetStats"]) == 2
    finally:
        assert bridge.stop() == 0
