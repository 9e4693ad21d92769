"""LANraragi's paths and JSON: the status of a job, its details, and enqueueing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import grpc.aio
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2
from grpc.aio import AioRpcError
from minion.v1 import minion_service_pb2 as pb
from minion.v1.minion_service_pb2_grpc import MinionServiceStub
from starlette.types import Receive, Scope, Send

from minion_rest_bridge import errors, json_text
from minion_rest_bridge.binding import decode_text
from minion_rest_bridge.calls import Caller, finish
from minion_rest_bridge.errors import Failure, FieldError, RequestError, field_path
from minion_rest_bridge.fields import INTEGERS
from minion_rest_bridge.forms import read_parameters
from minion_rest_bridge.json_in import read_integer, read_list
from minion_rest_bridge.json_out import list_to_json, struct_to_json, value_to_json
from minion_rest_bridge.json_text import JsonValue, dumps
from minion_rest_bridge.large import LargeMessages
from minion_rest_bridge.request import Limits, raw_path
from minion_rest_bridge.responses import send_failure, send_json
from minion_rest_bridge.rules import policy_of

PREFIX: Final = "/api/minion/"
UNAUTHORIZED: Final = dumps({"error": "This API is protected and requires login or an API Key."})
NO_SUCH_JOB: Final = "No job with this ID."
METHODS: Final = pb.DESCRIPTOR.services_by_name["MinionService"].methods_by_name

_JOB_ID: Final = re.compile(r"[0-9]{1,30}", re.ASCII)
_IDS: Final = range(1, 2**63)
_INT32: Final = INTEGERS[FieldDescriptor.CPPTYPE_INT32]


@dataclass(frozen=True, slots=True)
class Operation:
    """One of the paths."""

    name: str
    http_method: str  # GET, or POST with a form
    rpc: str
    read: Callable[[str, Scope, bytes], Message]  # of the first segment, the request and its body
    write: Callable[[Any], JsonValue]


class LanraragiApi:
    """An ASGI application that serves the paths under `/api/minion/`."""

    def __init__(self, channel: grpc.aio.Channel, *, limits: Limits, large: LargeMessages) -> None:
        stub: Any = MinionServiceStub(channel)
        self._calls = {
            rest: (operation, getattr(stub, operation.rpc), policy_of(METHODS[operation.rpc]))
            for rest, operation in OPERATIONS.items()
        }
        self._large = large
        self._caller = Caller(channel, large, limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        name, _, rest = raw_path(scope).removeprefix(PREFIX).rstrip("/").partition("/")
        if rest not in self._calls or not (name or rest):
            await send_failure(send, RequestError(errors.PATH_NOT_FOUND).failure)
            return
        operation, method, policy = self._calls[rest]

        def read(body: bytes) -> Message:
            return operation.read(name, scope, body)

        def write(response: Message) -> bytes:
            return dumps(operation.write(response))

        try:
            if operation.http_method != ("GET" if scope["method"] == "HEAD" else scope["method"]):
                raise errors.method_not_allowed([operation.http_method])
            call = await self._caller.start(
                method, policy, read, scope, receive, has_body=operation.http_method == "POST"
            )
            text = await self._large.write(write, await finish(call, policy, receive))
        except (RequestError, AioRpcError) as error:
            await _send_error(send, operation, errors.failure_of(error))
        else:
            await send_json(send, text)


async def _send_error(send: Send, operation: Operation, failure: Failure) -> None:
    if failure.http_status == HTTPStatus.UNAUTHORIZED:
        body = UNAUTHORIZED
    else:
        is_missing = failure.status.code == code_pb2.NOT_FOUND and operation.name != QUEUE
        error = NO_SUCH_JOB if is_missing else failure.status.message
        body = dumps(
            {"operation": operation.name, "error": error, "success": 0, "successMessage": ""}
        )
    await send_json(send, body, failure.http_status, failure.headers)


def _by_id(new_request: Callable[..., Message]) -> Callable[[str, Scope, bytes], Message]:
    def read(text: str, _scope: Scope, _body: bytes) -> Message:
        # Without decoding: percent-encoded digits are not accepted.
        job_id = int(text) if _JOB_ID.fullmatch(text) is not None else 0
        if job_id not in _IDS:
            raise FieldError(errors.BAD_JOB_ID, "jobid")
        return new_request(id=job_id)

    return read


def _read_queue(name: str, scope: Scope, body: bytes) -> Message:
    request = pb.EnqueueJobRequest(task=decode_text(unquote_to_bytes(name), "jobname"))
    parameters = read_parameters(scope, body, ("args", "priority"))
    if "args" not in parameters:
        raise FieldError(errors.ARGS_MISSING, "args")
    request.args.SetInParent()
    with field_path("args"):
        try:
            args = json_text.loads(parameters["args"])
        except errors.JsonTextError as error:
            raise FieldError(errors.ARGS_NOT_JSON.format(error)) from None
        read_list(args, request.args, depth=1)
    if "priority" in parameters:
        with field_path("priority"):
            request.priority = read_integer(parameters["priority"], _INT32)
    return request


def _write_status(job: pb.GetJobResponse) -> JsonValue:
    return {
        "state": job.state,
        "task": job.task,
        "error": job.error if job.HasField("error") else None,
        "notes": struct_to_json(job.notes),
    }


def _write_detail(response: pb.GetJobDetailResponse) -> JsonValue:
    job = response.job
    return {
        "args": list_to_json(job.args),
        "attempts": job.attempts,
        "children": list(job.children),
        "created": _epoch(job.created),
        "delayed": _epoch(job.delayed),
        "expires": _epoch(job.expires) if job.HasField("expires") else None,
        "finished": _epoch(job.finished) if job.HasField("finished") else None,
        "id": job.id,
        "lax": 1 if job.lax else 0,
        "notes": struct_to_json(job.notes),
        "parents": list(job.parents),
        "priority": job.priority,
        "queue": job.queue,
        "result": value_to_json(job.result) if job.HasField("result") else None,
        "retried": _epoch(job.retried) if job.HasField("retried") else None,
        "retries": job.retries,
        "started": _epoch(job.started) if job.HasField("started") else None,
        "state": job.state,
        "task": job.task,
        "time": _epoch(job.time),
        "worker": job.worker if job.HasField("worker") else None,
    }


def _write_queue(response: pb.EnqueueJobResponse) -> JsonValue:
    return {"operation": QUEUE, "success": 1, "job": response.id}


def _epoch(time: Timestamp) -> str:
    # The seconds are already rounded down, since nanoseconds are never negative.
    return str(time.seconds)


QUEUE: Final = "queue_minion_job"
OPERATIONS: Final = {
    "": Operation("minion_job_status", "GET", "GetJob", _by_id(pb.GetJobRequest), _write_status),
    "detail": Operation(
        "minion_job_detail", "GET", "GetJobDetail", _by_id(pb.GetJobDetailRequest), _write_detail
    ),
    "queue": Operation(QUEUE, "POST", "EnqueueJob", _read_queue, _write_queue),
}
"""By the rest of the path after its first segment."""
