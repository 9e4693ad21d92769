"""The table of gRPC statuses of errors, and the interceptor that applies it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from minion_wire.status import DETAILS_KEY, DOMAIN

from minion_server.domain.errors import (
    Conflict,
    Exhausted,
    Invalid,
    MinionError,
    NotFound,
    Unavailable,
)

logger = logging.getLogger(__name__)

INTERNAL_MESSAGE = "internal error"
MAX_FIELD_BYTES = 300
MAX_TEXT_BYTES = 500
"""Limits of texts that quote the caller: gRPC drops a status whose metadata exceeds 8 KiB, which
contains the message twice, percent-encoded and in base64."""


class MalformedMessage(MinionError):
    """A request cannot be decoded."""

    reason = "MALFORMED_MESSAGE"


CODES: dict[type[MinionError], grpc.StatusCode] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    MalformedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    # Messages of other errors are sent to the caller, too.
    MinionError: grpc.StatusCode.INTERNAL,
}


if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler
    Context = grpc.aio.ServicerContext
    Interceptor = grpc.aio.ServerInterceptor


async def abort(
    context: Context, code: grpc.StatusCode, message: str, reason: str, *details: Any
) -> NoReturn:
    """End a call with a status and its details.

    Args:
        context: Context of the call.
        code: The status.
        message: Text for people.
        reason: Code for programs, in UPPER_SNAKE case.
        details: Further messages of `google.rpc`.
    """
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN), *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort(code, message, ((DETAILS_KEY, status.SerializeToString()),))


class ErrorInterceptor(Interceptor):
    """Converts errors of servicers to statuses; unknown ones are logged and become INTERNAL."""

    def __init__(self) -> None:
        # By handler, not by method: another interceptor may return several for a method.
        self._guarded: dict[Handler, Handler] = {}

    async def intercept_service(  # type: ignore[override]  # None: no such method
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call with conversion of errors; None for an unknown method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        guarded = self._guarded.get(handler)
        if guarded is None:
            guarded = self._guarded[handler] = _guard(handler)
        return guarded


def _guard(handler: Handler) -> Handler:
    deserialize = _lenient(handler.request_deserializer)
    if handler.request_streaming:
        # All of our methods that stream requests stream responses too.
        return grpc.stream_stream_rpc_method_handler(
            _guard_stream(_with_messages(handler.stream_stream)),
            deserialize,
            handler.response_serializer,
        )
    if handler.response_streaming:
        # A coroutine, such as the health service's, writes its responses to the context.
        is_generator = inspect.isasyncgenfunction(handler.unary_stream)
        guard = _guard_stream if is_generator else _guard_unary
        return grpc.unary_stream_rpc_method_handler(
            guard(handler.unary_stream), deserialize, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        _guard_unary(handler.unary_unary), deserialize, handler.response_serializer
    )


def _lenient(deserialize: Any) -> Any:
    """Return a deserializer that returns an error for a malformed request.

    If it raised the error, gRPC would end the call with INTERNAL.
    """
    if deserialize is None:
        return None

    def run(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return MalformedMessage("the request is not a message of the method's type")

    return run


def _guard_unary(behaviour: Any) -> Any:
    @functools.wraps(behaviour)
    async def run(request: Any, context: Context) -> Any:
        try:
            _require_message(request)
            return await behaviour(request, context)
        except Exception as error:  # noqa: BLE001 - clients get statuses only
            await _end(context, error)

    return run


def _guard_stream(behaviour: Any) -> Any:
    @functools.wraps(behaviour)
    async def run(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            _require_message(request)
            # Closed at once, even if the call ends while a response is being sent.
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - clients get statuses only
            await _end(context, error)

    return run


async def _end(context: Context, error: Exception) -> NoReturn:
    """End a call that raised an error with the error's status."""
    try:
        if isinstance(error, grpc.aio.AbortError | grpc.aio.InternalError):
            raise error
        await _abort(context, error)
    except grpc.aio.InternalError as failure:
        raise asyncio.CancelledError("the client has ended the call") from failure


def _with_messages(behaviour: Any) -> Any:
    """Raise at a malformed request in a stream of requests."""

    async def check(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            _require_message(request)
            yield request

    @functools.wraps(behaviour)
    async def run(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async with aclosing(behaviour(check(requests), context)) as responses:
            async for response in responses:
                yield response

    return run


def _require_message(request: Any) -> None:
    if isinstance(request, MalformedMessage):
        raise request


async def _abort(context: Context, error: Exception) -> NoReturn:
    match error:
        case Invalid():
            field = clip(error.field, MAX_FIELD_BYTES)
            description = clip(error.description, MAX_TEXT_BYTES)
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=field, description=description
            )
            await abort(
                context,
                CODES[Invalid],
                f"{field}: {description}",
                error.reason,
                error_details_pb2.BadRequest(field_violations=[violation]),
            )
        case MinionError():
            await abort(context, _code(error), clip(str(error), MAX_TEXT_BYTES), error.reason)
        case _:
            logger.error("a call failed", exc_info=error)
            await abort(context, grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, "INTERNAL")


def _code(error: MinionError) -> grpc.StatusCode:
    """Return the status of the nearest of an error's classes that has one."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def clip(text: str, max_bytes: int) -> str:
    """Return a text cut to a number of bytes."""
    data = text.encode()
    if len(data) <= max_bytes:
        return text
    return data[:max_bytes].decode(errors="ignore") + "..."
