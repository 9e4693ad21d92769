"""The OpenAPI 3.1 description of the REST API, made from the descriptors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc.status_pb2 import Status

from minion_rest_bridge.fields import is_well_known, resolve, takes_text
from minion_rest_bridge.responses import CONTENT_TYPE
from minion_rest_bridge.rules import BODY_ALL, PACKAGE, Rule, read_rules
from minion_rest_bridge.schemas import Comments, Direction, Schema, SchemaBook, parameter_schema
from minion_rest_bridge.streams import EVENTS, LINES

DISTRIBUTION: Final = "minion-server"
# Written by protoc, beside the generated modules.
DESCRIPTOR_SET: Final = "minion.binpb"
SKELETON: Final = Path(__file__).parent / "openapi.json"
"""Parts that descriptors do not contain: paths that are not transcoded, and error responses."""

_ERRORS: Final = (400, 401, 404, 408, 409, 413, 415, 429, 500, 501, 503, 504)
_WITH_BODY: Final = (408, 413, 415)
_NEED_KEY: Final = (401,)
_STREAM: Final = """\
A stream of messages: Server-Sent Events when the request accepts `text/event-stream`, else JSON,
one message per line. An error that ends the stream is an event `error` with the
`google.rpc.Status` as its data, or a last line whose only member is `error`."""


def load_comments(package: str = PACKAGE) -> Comments:
    """Return the comments of a package's .proto files, which runtime descriptors do not have.

    Raises:
        FileNotFoundError: The package has no descriptor set.
    """
    data = resources.files(package).joinpath(DESCRIPTOR_SET).read_bytes()
    files = FileDescriptorSet.FromString(data).file
    return {
        name: text for file in files if file.package == package for name, text in _of_file(file)
    }


def describe(services: Sequence[ServiceDescriptor], comments: Comments) -> dict[str, Any]:
    """Return the OpenAPI description of the services and all other paths."""
    book = SchemaBook(comments)
    # The responses of the skeleton refer to it.
    book.message(Status.DESCRIPTOR, Direction.RESPONSE)
    paths: dict[str, dict[str, Any]] = {}
    seen: Counter[str] = Counter()
    for rule in read_rules(services):
        operation = _Operation(rule, book, comments).describe()
        seen[rule.method.name] += 1
        if seen[rule.method.name] > 1:
            operation["operationId"] += str(seen[rule.method.name])
        paths.setdefault(rule.template.plain_text, {})[rule.http_method.lower()] = operation
    described: dict[str, Any] = json.loads(SKELETON.read_bytes())
    described["info"]["version"] = version(DISTRIBUTION)
    described["tags"][:0] = (
        {"name": service.name, "description": comments.get(service.full_name, "")}
        for service in services
    )
    described["paths"] = paths | described["paths"]
    components = described["components"]
    components["schemas"] = dict(sorted(book.schemas.items())) | components["schemas"]
    return described


class _Operation:
    """The description of one rule."""

    def __init__(self, rule: Rule, book: SchemaBook, comments: Comments) -> None:
        self._rule = rule
        self._method = rule.method
        self._policy = rule.policy
        self._book = book
        self._comments = comments
        self._in_path = [*rule.template.variables]

    def describe(self) -> dict[str, Any]:
        comment = self._comments.get(self._method.full_name, "")
        summary = comment.partition(". ")[0].partition("\n")[0]
        operation: dict[str, Any] = {
            "operationId": self._method.name,
            # Plain text, unlike the description.
            "summary": summary.rstrip(".").replace("`", ""),
            "description": "\n\n".join([comment, *self._policy_texts()]),
            "tags": [self._method.containing_service.name],
            "parameters": [*self._path_parameters(), *self._query_parameters()],
            "responses": self._responses(),
        }
        if self._rule.body is not None:
            content = _json(self._request_body(self._rule.body))
            operation["requestBody"] = {"content": content, "required": False}
        if self._policy.is_open:
            operation["security"] = []
        return operation

    def _policy_texts(self) -> Iterator[str]:
        if self._policy.is_open:
            yield "Needs no key."
        if self._policy.is_idempotent and not self._policy.is_safe:
            yield "May be repeated: a second call changes nothing more."
        if self._policy.wait_field is not None:
            yield f"A call waits for up to `{self._policy.wait_field}`."

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
            "schema": parameter_schema(field),
        }

    def _request_body(self, body: str) -> Schema:
        message = self._method.input_type
        if body != BODY_ALL:
            return self._book.field(message.fields_by_name[body], Direction.REQUEST)
        if self._in_path:
            without = {path[0] for path in self._in_path}
            return self._book.object(message, Direction.REQUEST, without)
        return self._book.message(message, Direction.REQUEST)

    def _responses(self) -> dict[str, Any]:
        needless = {
            *(_WITH_BODY if self._rule.body is None else ()),
            *(_NEED_KEY if self._policy.is_open else ()),
        }
        return {"200": self._success()} | {
            str(code): {"$ref": f"#/components/responses/Error{code}"}
            for code in _ERRORS
            if code not in needless
        }

    def _success(self) -> dict[str, Any]:
        field = self._rule.response_body
        if field is None:
            schema = self._book.message(self._method.output_type, Direction.RESPONSE)
        else:
            schema = self._book.field(field, Direction.RESPONSE)
        if self._policy.is_stream:
            return {"description": _STREAM, "content": _stream_content(schema)}
        name = (field or self._method.output_type).full_name
        return {"description": self._comments.get(name, "The response."), "content": _json(schema)}


def _json(schema: Schema) -> dict[str, Any]:
    return {CONTENT_TYPE: {"schema": schema}}


def _stream_content(schema: Schema) -> dict[str, Any]:
    message = {"type": "string", "contentMediaType": CONTENT_TYPE, "contentSchema": schema}
    lines = message | {"description": "Lines, each a message."}
    events = message | {"description": "Events, each with a message."}
    return {
        LINES.content_type.decode(): {"schema": lines},
        EVENTS.content_type.decode(): {"schema": events},
    }


def _leaves(
    message: Any, above: tuple[FieldDescriptor, ...]
) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Return the fields that parameters can set, each with the fields that contain it."""
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


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        if location.leading_comments:
            lines = location.leading_comments.strip().splitlines()
            yield _name(file, location.path), "\n".join(line.strip() for line in lines)


def _name(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """Return the full name at a path of field numbers and indexes (see SourceCodeInfo)."""
    names, node = [file.package], cast("Any", file)
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = node.DESCRIPTOR.fields_by_number[number]
        if not field.is_repeated or field.message_type is None:
            break
        node = getattr(node, field.name)[index]
        names.append(node.name)
    return ".".join(names)
