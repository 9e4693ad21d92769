"""The documented paths, with LANraragi's JSON: a job's state, its detail, and queueing one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from grpc.aio import AioRpcError
from minion.v1 import minion_service_pb2 as pb
from minion.v1.job_pb2 import Job
from minion.v1.minion_service_pb2_grpc import MinionServiceStub
from starlette.types import Receive, Scope, Send

from minion_rest_bridge import json_text
from minion_rest_bridge.answers import CHALLENGE, send_failure, send_json
from minion_rest_bridge.calls import call_unary
from minion_rest_bridge.errors import (
    Failure,
    RequestError,
    failure_of_call,
    invalid_field,
    method_not_allowed,
    path_not_found,
    too_large,
)
from minion_rest_bridge.forms import read_parameters
from minion_rest_bridge.json_in import read_integer, read_list
from minion_rest_bridge.json_out import dumps, list_to_json, struct_to_json, value_to_json
from minion_rest_bridge.json_text import JsonTextError, JsonValue
from minion_rest_bridge.large import LargeMessages
from minion_rest_bridge.policy import Policy, policy_of
from minion_rest_bridge.query import decode_text
from minion_rest_bridge.reading import RequestReader
from minion_rest_bridge.request import Limits, key_metadata, raw_path, timeout_of

PREFIX: Final = "/api/minion/"
UNAUTHORIZED_BODY: Final = dumps(
    {"error": "This API is protected and requires login or an API Key."}
)
NO_SUCH_JOB: Final = "No job with this ID."

_STATUS: Final = "minion_job_status"
_DETAIL: Final = "minion_job_detail"
_QUEUE: Final = "queue_minion_job"

_JOB_ID: Final = re.compile(r"[0-9]{1,30}", re.ASCII)
_MAX_ID: Final = 2**63 - 1
_INT32: Final = (-(2**31), 2**31 - 1)

_METHODS: Final = pb.DESCRIPTOR.services_by_name["MinionService"].methods_by_name
_GET_JOB: Final = policy_of(_METHODS["GetJob"])
_GET_JOB_DETAIL: Final = policy_of(_METHODS["GetJobDetail"])
_ENQUEUE_JOB: Final = policy_of(_METHODS["EnqueueJob"])

_Handler = Callable[[str, Scope, Receive], Awaitable[bytes]]


class LanraragiApi:
    """An ASGI application that serves the paths under `/api/minion/`.

    Args:
        channel: Where the methods are called.
        limits: What a request may take.
        large: Converts large messages.
    """

    def __init__(self, channel: grpc.aio.Channel, *, limits: Limits, large: LargeMessages) -> None:
        stub: Any = MinionServiceStub(channel)
        self._get_job = stub.GetJob
        self._get_job_detail = stub.GetJobDetail
        self._enqueue_job = stub.EnqueueJob
        self._limits = limits
        self._large = large
        self._reader = RequestReader(channel, large, limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        name, _, rest = raw_path(scope).removeprefix(PREFIX).rstrip("/").partition("/")
        operation, method, handler = self._route(name, rest)
        if handler is None:
            await send_failure(send, path_not_found().failure)
            return
        try:
            if scope["method"] not in (method, "HEAD" if method == "GET" else method):
                raise method_not_allowed([method])
            body = await handler(name, scope, receive)
        except RequestError as error:
            await _send_error(send, operation, error.failure, error.headers)
        except AioRpcError as error:
            await _send_error(send, operation, failure_of_call(error), [])
        else:
            await send_json(send, body)

    def _route(self, name: str, rest: str) -> tuple[str, str, _Handler | None]:
        match rest:
            case "" if name:
                return _STATUS, "GET", self._status
            case "detail":
                return _DETAIL, "GET", self._detail
            case "queue":
                return _QUEUE, "POST", self._queue
            case _:
                return "", "", None

    async def _status(self, name: str, scope: Scope, receive: Receive) -> bytes:
        def convert(_body: bytes) -> pb.GetJobRequest:
            return pb.GetJobRequest(id=_job_id(name))

        response = await self._call(self._get_job, _GET_JOB, convert, scope, receive)
        return await self._large.write(lambda job: dumps(_status_json(job)), response)

    async def _detail(self, name: str, scope: Scope, receive: Receive) -> bytes:
        def convert(_body: bytes) -> pb.GetJobDetailRequest:
            return pb.GetJobDetailRequest(id=_job_id(name))

        response = await self._call(self._get_job_detail, _GET_JOB_DETAIL, convert, scope, receive)
        return await self._large.write(lambda detail: dumps(_job_json(detail.job)), response)

    async def _queue(self, name: str, scope: Scope, receive: Receive) -> bytes:
        def convert(body: bytes) -> pb.EnqueueJobRequest:
            return _enqueue_request(name, scope, body, self._limits.max_bytes)

        response = await self._call(self._enqueue_job, _ENQUEUE_JOB, convert, scope, receive)
        return dumps({"operation": _QUEUE, "success": 1, "job": response.id})

    async def _call(
        self,
        method: Any,
        policy: Policy,
        convert: Callable[[bytes], Any],
        scope: Scope,
        receive: Receive,
    ) -> Any:
        def read(body: bytes) -> tuple[Any, float | None]:
            return convert(body), timeout_of(scope)

        has_body = policy is _ENQUEUE_JOB
        request, timeout = await self._reader.read(policy, scope, receive, read, has_body=has_body)
        if timeout is None:
            timeout = policy.timeout(request, self._limits.timeout)
        return await call_unary(
            method, request, key_metadata(scope), timeout, receive, waits=policy.waits
        )


async def _send_error(
    send: Send, operation: str, failure: Failure, headers: list[tuple[bytes, bytes]]
) -> None:
    if failure.code == StatusCode.UNAUTHENTICATED:
        await send_json(send, UNAUTHORIZED_BODY, HTTPStatus.UNAUTHORIZED, [CHALLENGE])
        return
    is_missing = failure.code == StatusCode.NOT_FOUND and operation != _QUEUE
    text = NO_SUCH_JOB if is_missing else failure.message
    body = {"operation": operation, "error": text, "success": 0, "successMessage": ""}
    await send_json(send, dumps(body), failure.http_status, headers)


def _job_id(text: str) -> int:
    """Read a job's id as it stands in the path: a percent sign is no digit, whatever it encodes."""
    job_id = int(text) if _JOB_ID.fullmatch(text) is not None else 0
    if not 1 <= job_id <= _MAX_ID:
        raise invalid_field("jobid", "must be an integer in 1..2^63-1")
    return job_id


def _enqueue_request(name: str, scope: Scope, body: bytes, max_bytes: int) -> pb.EnqueueJobRequest:
    request = pb.EnqueueJobRequest(task=decode_text(unquote_to_bytes(name), "jobname"))
    parameters = read_parameters(scope, body, ("args", "priority"))
    if "args" not in parameters:
        raise invalid_field("args", "is required: a JSON array")
    request.args.SetInParent()
    try:
        read_list(json_text.loads(parameters["args"]), request.args, "args", depth=1)
    except JsonTextError as error:
        raise invalid_field("args", f"must be a JSON array: {error}") from None
    if "priority" in parameters:
        request.priority = read_integer(parameters["priority"], "priority", *_INT32)
    if request.ByteSize() > max_bytes:
        raise too_large(max_bytes)
    return request


def _status_json(job: pb.GetJobResponse) -> JsonValue:
    return {
        "state": job.state,
        "task": job.task,
        "error": job.error if job.HasField("error") else None,
        "notes": struct_to_json(job.notes),
    }


def _job_json(job: Job) -> JsonValue:
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


def _epoch(time: Timestamp) -> str:
    # Nanoseconds count upward, so that the seconds are the floor already.
    return str(time.seconds)
