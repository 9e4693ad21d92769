"""From the text of paths and query strings to fields of a message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from minion_rest_bridge.errors import invalid_field, unknown_field
from minion_rest_bridge.json_in import MAX_DEPTH, add_to_field, excludes, set_field
from minion_rest_bridge.json_text import JsonValue
from minion_rest_bridge.services import BOOL_VALUE, resolve, takes_text

Path = tuple[str, ...]

_BOOLEANS: Final = {"true": True, "false": False}
_INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
_INTEGER: Final = re.compile(r"-?[0-9]+", re.ASCII)
_ENUM_NUMBER: Final = re.compile(r"-?[0-9]{1,10}", re.ASCII)


def split_query(query: bytes) -> list[tuple[bytes, bytes]]:
    """Split a query string into percent-decoded names and values.

    A plus sign is a space, as HTML forms send it.
    """
    pairs = (part.partition(b"=") for part in query.replace(b"+", b" ").split(b"&") if part)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def decode_text(value: bytes, path: str) -> str:
    """Decode percent-decoded bytes.

    Raises:
        RequestError: They are not UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise invalid_field(path, "is not UTF-8") from None


def bind_path(message: Message, fields: Path, raw: bytes) -> None:
    """Bind a part of the path to a field, which the body may have set to the same value only.

    Raises:
        RequestError: The text is not of the field's type, or the body contradicts it.
    """
    path = ".".join(fields)
    chain, owner = _owner(message, fields)
    field = chain[-1]
    bound = type(owner)()
    set_field(_to_json(decode_text(raw, path), field, path), bound, field, path)
    new, old = getattr(bound, field.name), getattr(owner, field.name)
    in_body = owner.HasField(field.name) if field.has_presence else old != field.default_value
    if in_body and new != old:
        raise invalid_field(path, "differs between the path and the body")
    if not in_body:
        owner.MergeFrom(bound)


def bind_query(message: Message, query: bytes, taken: Sequence[Path], *, allowed: bool) -> None:
    """Bind the parameters of a query string to fields.

    Args:
        message: Where to.
        query: As sent, without its question mark.
        taken: Fields that the path or the body fills.
        allowed: False when the body fills all fields, so that none is left for the query.

    Raises:
        RequestError: A parameter names no field that the query may fill, or its text is not of the
            field's type.
    """
    seen: set[Path] = set()
    for raw_name, raw_value in split_query(query):
        name = decode_text(raw_name, "query")
        chain = resolve(message.DESCRIPTOR, name.split(".")) if allowed else None
        fields = tuple(field.name for field in chain or ())
        if chain is None or any(fields[: len(path)] == path for path in taken):
            raise unknown_field(name, "query parameter")
        path = ".".join(fields)
        field = chain[-1]
        _, owner = _owner(message, fields)
        if field.is_repeated and takes_text(field):
            path = f"{path}[{len(getattr(owner, field.name))}]"
        value = _to_json(decode_text(raw_value, path), field, path)
        if field.is_repeated:
            add_to_field(value, owner, field, path, len(fields))
        elif fields in seen:
            raise invalid_field(path, "is given more than once")
        else:
            set_field(value, owner, field, path, len(fields))
        seen.add(fields)


def _owner(message: Message, fields: Sequence[str]) -> tuple[list[FieldDescriptor], Message]:
    """Return the fields of a path, and the message that has the last of them.

    Raises:
        RequestError: A field on the way belongs to a oneof of which another member is set.
    """
    chain = resolve(message.DESCRIPTOR, fields)
    if chain is None:
        raise LookupError(f"{message.DESCRIPTOR.full_name} has no {'.'.join(fields)}")
    if len(chain) > MAX_DEPTH:
        raise invalid_field(".".join(fields[:3]), "is nested too deeply")
    owner = message
    for index, field in enumerate(chain):
        oneof = field.containing_oneof
        other = None if oneof is None else owner.WhichOneof(oneof.name)
        if other is not None and other != field.name:
            raise invalid_field(".".join(fields[: index + 1]), excludes(other))
        if index < len(chain) - 1:
            owner = getattr(owner, field.name)
    return chain, owner


def _to_json(text: str, field: FieldDescriptor, path: str) -> JsonValue:
    """Answer the JSON value that a parameter's text stands for."""
    if not takes_text(field):
        raise invalid_field(path, "is an object, which a parameter cannot give")
    if field.cpp_type in _INTEGERS and _INTEGER.fullmatch(text) is None:
        # JSON's strings may have fractions and exponents; that would be many URLs for one job.
        raise invalid_field(path, f"must be an integer, not {text[:40]!r}")
    is_boolean = field.cpp_type == FieldDescriptor.CPPTYPE_BOOL or (
        field.message_type is not None and field.message_type.full_name == BOOL_VALUE
    )
    if is_boolean:
        return _BOOLEANS.get(text, text)
    if field.enum_type is not None and _ENUM_NUMBER.fullmatch(text) is not None:
        return int(text)
    return text
