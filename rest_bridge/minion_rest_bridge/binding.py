"""Make the message of a request from its path, query and body, by an HTTP rule."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from minion_wire.json_value import TOO_DEEP

from minion_rest_bridge import errors, fields, json_text
from minion_rest_bridge.errors import FieldError, JsonTextError, RequestError, field_path
from minion_rest_bridge.json_in import BOOLEANS, add_value, check_oneof, read_field, read_message
from minion_rest_bridge.json_text import JsonValue
from minion_rest_bridge.rules import BODY_ALL, Rule

_INTEGER: Final = re.compile(r"-?[0-9]+", re.ASCII)
_ENUM_NUMBER: Final = re.compile(r"-?[0-9]{1,10}", re.ASCII)


class Binder:
    """Makes the request messages of one rule."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._new_message = message_factory.GetMessageClass(rule.method.input_type)
        self._body_field = rule.method.input_type.fields_by_name.get(rule.body or "")
        # Fields that the query cannot fill.
        self._taken: list[fields.Path] = [*rule.template.variables]
        if self._body_field is not None:
            self._taken.append((self._body_field.name,))

    def bind(self, match: re.Match[str], query: bytes, body: bytes) -> Message:
        """Return the message of a path that matches the template, a query and a body.

        Raises:
            RequestError: The request is invalid.
        """
        message = self._new_message()
        if body:
            self._bind_body(message, body)
        if query:
            self._bind_query(message, query)
        for path, text in self._rule.template.bind(match).items():
            _bind_path(message, path, text)
        return message

    def _bind_body(self, message: Message, body: bytes) -> None:
        try:
            value = json_text.loads(body)
        except JsonTextError as error:
            raise RequestError(errors.NOT_JSON, error) from None
        if self._body_field is None:
            if not isinstance(value, dict):
                raise FieldError(errors.NOT_AN_OBJECT)
            read_message(value, message)
            return
        with field_path(self._body_field.name):
            read_field(value, message, self._body_field)

    def _bind_query(self, message: Message, query: bytes) -> None:
        seen: set[fields.Path] = set()
        for raw_name, raw_value in split_query(query):
            name = decode_text(raw_name, "query")
            # When the body fills all fields, none is left for the query.
            is_taken = self._rule.body == BODY_ALL
            chain = None if is_taken else fields.resolve(message.DESCRIPTOR, name.split("."))
            path = tuple(field.name for field in chain or ())
            if chain is None or any(path[: len(taken)] == taken for taken in self._taken):
                raise errors.unknown_name(name, "query parameter")
            _bind_parameter(message, chain, raw_value, is_second=path in seen)
            seen.add(path)


def split_query(query: bytes) -> list[tuple[bytes, bytes]]:
    """Split a query string into percent-decoded names and values; a plus sign is a space."""
    pairs = (part.partition(b"=") for part in query.replace(b"+", b" ").split(b"&") if part)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def decode_text(value: bytes, *steps: str) -> str:
    """Decode bytes; raise FieldError, with these steps, if they are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise FieldError(errors.NOT_UTF_8, *steps) from None


def _bind_path(message: Message, path: fields.Path, raw: bytes) -> None:
    """Bind a part of the path to a field; refuse another value of the field in the body."""
    owner, field = _find(message, fields.resolve(message.DESCRIPTOR, path) or [])
    bound = type(owner)()
    with field_path(".".join(path)):
        read_field(_to_json(raw, field), bound, field)
        new, old = getattr(bound, field.name), getattr(owner, field.name)
        in_body = owner.HasField(field.name) if field.has_presence else old != field.default_value
        if not in_body:
            owner.MergeFrom(bound)
        elif new != old:
            raise FieldError(errors.DIFFERS_FROM_BODY)


def _bind_parameter(
    message: Message, chain: list[FieldDescriptor], raw: bytes, *, is_second: bool
) -> None:
    """Bind a query parameter to the field at the end of a chain."""
    owner, field = _find(message, chain)
    name = ".".join(field.name for field in chain)
    if field.is_repeated and fields.takes_text(field):
        name += f"[{len(getattr(owner, field.name))}]"
    with field_path(name):
        value = _to_json(raw, field)
        if field.is_repeated:
            add_value(value, getattr(owner, field.name), field, len(chain))
        elif is_second:
            raise FieldError(errors.TWICE)
        else:
            read_field(value, owner, field, len(chain))


def _find(message: Message, chain: list[FieldDescriptor]) -> tuple[Any, FieldDescriptor]:
    """Return the last field of a chain, and the message that contains it."""
    if len(chain) > fields.MAX_DEPTH:
        raise FieldError(TOO_DEEP, ".".join(field.name for field in chain[:3]))
    owner = message
    for index, field in enumerate(chain):
        if index:
            owner = getattr(owner, chain[index - 1].name)
        if field.containing_oneof is not None:
            with field_path(".".join(field.name for field in chain[: index + 1])):
                check_oneof(owner, field)
    return owner, chain[-1]


def _to_json(raw: bytes, field: FieldDescriptor) -> JsonValue:
    """Return the JSON value of a parameter's text."""
    text = decode_text(raw)
    if not fields.takes_text(field):
        raise FieldError(errors.NOT_A_PARAMETER)
    if field.cpp_type in fields.INTEGERS and _INTEGER.fullmatch(text) is None:
        # Strings in JSON may have fractions and exponents; here one job would have many URLs.
        raise FieldError(errors.NOT_AN_INTEGER.format(text[:40]))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL or fields.is_message(
        field, fields.BOOL_VALUE
    ):
        return BOOLEANS.get(text, text)
    if field.enum_type is not None and _ENUM_NUMBER.fullmatch(text) is not None:
        return int(text)
    return text
