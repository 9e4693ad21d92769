"""The OpenAPI 3.1 description of everything that is served, made from the descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from google.rpc.status_pb2 import Status

from minion_rest_bridge.comments import Comments
from minion_rest_bridge.fields import is_well_known, resolve, takes_text
from minion_rest_bridge.lanraragi_openapi import LANRARAGI_PATHS, LANRARAGI_SCHEMAS, LANRARAGI_TAG
from minion_rest_bridge.rules import BODY_ALL, Rule, read_rules
from minion_rest_bridge.schemas import Direction, Schema, SchemaBook

OPENAPI_VERSION: Final = "3.1.0"
DISTRIBUTION: Final = "minion-server"
KEY_FREE: Final = "Needs no key."

_DESCRIPTION: Final = """\
The job queue over HTTP: the gRPC services as JSON under `/v1`, and the paths of LANraragi's Minion
API under `/api/minion`.

Under `/v1`, parameters and members have both the names shown here and those of the .proto files
(`pageSize` or `page_size`). Integers of 64 bits are answered as strings and accepted as numbers,
too. Parameters and members that are not known are refused. Errors are `google.rpc.Status`.

A deadline is set by the header `Grpc-Timeout` (`100m` is 100 milliseconds; units H, M, S, m, u, n)
or `X-Server-Timeout` (seconds). Without one, a call may take 60 seconds more than it is asked to
wait, and a stream any time."""

_ERRORS: Final[dict[int, str]] = {
    400: "The request cannot be accepted; `details` names the field.",
    401: "The key is missing or wrong.",
    404: "There is nothing with this name or id.",
    408: "The body did not arrive in time.",
    409: "The state of things forbids it.",
    413: "The request is too large.",
    415: "The body is compressed.",
    429: "A limit is reached for now.",
    500: "The server met a defect.",
    501: "The gRPC server does not know this method.",
    503: "The gRPC server is out of reach.",
    504: "The deadline passed before the answer came.",
}
_WITH_BODY: Final = (408, 413, 415)
_NEED_KEY: Final = (401,)


def describe(services: Sequence[ServiceDescriptor], comments: Comments) -> dict[str, Any]:
    """Answer the OpenAPI description of the services and of all other paths.

    Args:
        services: What is transcoded.
        comments: Descriptions of services, methods, messages and fields.
    """
    book = SchemaBook(comments)
    status = book.message(Status.DESCRIPTOR, Direction.RESPONSE)
    paths: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    for rule in read_rules(services):
        operation = _Operation(rule, book, comments).describe()
        count = seen[rule.method.name] = seen.get(rule.method.name, 0) + 1
        if count > 1:
            operation["operationId"] += str(count)
        path = _path_text(rule)
        paths.setdefault(path, {})[rule.http_method.lower()] = operation
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Minion",
            "version": version(DISTRIBUTION),
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to where the description is found.
        "servers": [{"url": "."}],
        "security": [{"key": []}],
        "tags": [*_tags(services, comments), LANRARAGI_TAG, _HEALTH_TAG],
        "paths": paths | LANRARAGI_PATHS | _HEALTH_PATHS,
        "components": {
            "schemas": dict(sorted(book.schemas.items())) | LANRARAGI_SCHEMAS,
            "responses": {
                _error_name(code): {
                    "description": description,
                    "content": {"application/json": {"schema": status}},
                    **(_CHALLENGE if code in _NEED_KEY else {}),
                }
                for code, description in _ERRORS.items()
            },
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The server's key, as it is or in base64.",
                }
            },
        },
    }


class _Operation:
    """The description of one rule."""

    def __init__(self, rule: Rule, book: SchemaBook, comments: Comments) -> None:
        self._rule = rule
        self._method = rule.method
        self._book = book
        self._comments = comments
        self._comment = comments.get(self._method.full_name, "")
        self._in_path = [variable.path for variable in rule.template.variables]

    def describe(self) -> dict[str, Any]:
        summary, _, _ = self._comment.partition(". ")
        operation: dict[str, Any] = {
            "operationId": self._method.name,
            # Unlike the description, it is plain text.
            "summary": summary.partition("\n")[0].rstrip(".").replace("`", ""),
            "description": "\n\n".join([self._comment, *self._policy()]),
            "tags": [self._method.containing_service.name],
            "parameters": [*self._path_parameters(), *self._query_parameters()],
            "responses": self._responses(),
        }
        if self._rule.body is not None:
            operation["requestBody"] = self._request_body()
        if self._rule.policy.is_open:
            operation["security"] = []
        return operation

    def _policy(self) -> Iterator[str]:
        """Return what the options of the method say, as sentences."""
        if self._rule.policy.is_open:
            yield KEY_FREE
        if self._rule.policy.is_idempotent and not self._rule.policy.is_safe:
            yield "May be repeated: a second call changes nothing more."
        if self._rule.policy.wait_field is not None:
            yield f"A call lasts as long as `{self._rule.policy.wait_field}` says, at most."

    def _path_parameters(self) -> Iterator[dict[str, Any]]:
        for path in self._in_path:
            chain = resolve(self._method.input_type, path) or []
            yield self._parameter(".".join(path), chain[-1], "path") | {"required": True}

    def _query_parameters(self) -> Iterator[dict[str, Any]]:
        if self._rule.body == BODY_ALL:
            return
        taken = {*self._in_path, (self._rule.body or "",)}
        for chain in _leaves(self._method.input_type, ()):
            if tuple(field.name for field in chain) not in taken:
                name = ".".join(field.json_name for field in chain)
                yield self._parameter(name, chain[-1], "query")

    def _parameter(self, name: str, field: FieldDescriptor, place: str) -> dict[str, Any]:
        return {
            "name": name,
            "in": place,
            "description": self._comments.get(field.full_name, ""),
            "schema": self._book.parameter(field),
        }

    def _request_body(self) -> dict[str, Any]:
        message = self._method.input_type
        body = self._rule.body
        if body != BODY_ALL:
            schema = self._book.field(message.fields_by_name[body or ""], Direction.REQUEST)
        elif self._in_path:
            without = {path[0] for path in self._in_path}
            schema = self._book.object(message, Direction.REQUEST, without)
        else:
            schema = self._book.message(message, Direction.REQUEST)
        return {"content": {"application/json": {"schema": schema}}, "required": False}

    def _responses(self) -> dict[str, Any]:
        responses: dict[str, Any] = {"200": self._success()}
        for code in _ERRORS:
            needless = (code in _WITH_BODY and self._rule.body is None) or (
                code in _NEED_KEY and self._rule.policy.is_open
            )
            if not needless:
                responses[str(code)] = {"$ref": f"#/components/responses/{_error_name(code)}"}
        return responses

    def _success(self) -> dict[str, Any]:
        output = self._method.output_type
        field = self._rule.response_body
        if field is None:
            schema = self._book.message(output, Direction.RESPONSE)
            description = self._comments.get(output.full_name, "The answer.")
        else:
            schema = self._book.field(field, Direction.RESPONSE)
            description = self._comments.get(field.full_name, "The answer.")
        if not self._method.server_streaming:
            return {"description": description, "content": {"application/json": {"schema": schema}}}
        return {"description": _STREAM, "content": _stream_content(schema)}


_STREAM: Final = """\
A stream of messages: Server-Sent Events when the request accepts `text/event-stream`, else JSON,
one message a line. An error that ends the stream is an event `error` with the `google.rpc.Status`
as its data, or a last line with the only member `error`."""


def _stream_content(schema: Schema) -> dict[str, Any]:
    message = {"contentMediaType": "application/json", "contentSchema": schema}
    return {
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "Lines, each a message.", **message}
        },
        "text/event-stream": {
            "schema": {"type": "string", "description": "Events, each with a message.", **message}
        },
    }


def _leaves(
    message: Any, above: tuple[FieldDescriptor, ...]
) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Answer the fields that parameters can give, each with the fields that lead to it."""
    for field in message.fields:
        chain = (*above, field)
        if takes_text(field):
            yield chain
        elif not (
            field.is_repeated
            or is_well_known(field.message_type)
            or field.message_type in {each.containing_type for each in chain}
        ):
            yield from _leaves(field.message_type, chain)


def _path_text(rule: Rule) -> str:
    """Answer the path as OpenAPI writes it, without the patterns of its variables."""
    segments: list[str] = list(rule.template.segments)
    for variable in reversed(rule.template.variables):
        segments[variable.start : variable.end] = [f"{{{'.'.join(variable.path)}}}"]
    verb = f":{rule.template.verb}" if rule.template.verb else ""
    return f"/{'/'.join(segments)}{verb}"


def _tags(services: Sequence[ServiceDescriptor], comments: Comments) -> list[dict[str, str]]:
    return [
        {"name": service.name, "description": comments.get(service.full_name, "")}
        for service in services
    ]


def _error_name(code: int) -> str:
    return f"Error{code}"


_CHALLENGE: Final = {
    "headers": {
        "WWW-Authenticate": {"schema": {"type": "string"}, "description": "The scheme, `Bearer`."}
    }
}
_HEALTH_TAG: Final = {"name": "Health", "description": "Whether the server serves."}


def _health_response(description: str, status: str) -> dict[str, Any]:
    schema: Schema = {
        "type": "object",
        "properties": {"status": {"const": status}},
        "required": ["status"],
    }
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_HEALTH_PATHS: Final[dict[str, Any]] = {
    "/healthz": {
        "get": {
            "operationId": "CheckHealth",
            "summary": "Tell whether the gRPC server serves",
            "tags": ["Health"],
            "security": [],
            "responses": {
                "200": _health_response("It serves.", "SERVING"),
                "503": _health_response("It does not, or is out of reach.", "NOT_SERVING"),
            },
        }
    }
}
