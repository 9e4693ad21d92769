"""Fields by their descriptors: both spellings of names, kinds, and ranges."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

Path = tuple[str, ...]
"""Names of nested fields, as spelled in the .proto files."""

MAX_DEPTH: Final = 96
"""Maximum nesting of messages.

Protobuf parsers stop at 100, and responses nest what was sent more deeply, as in a list of jobs.
"""
INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT64: range(-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT32: range(2**32),
    FieldDescriptor.CPPTYPE_UINT64: range(2**64),
}
"""The ranges of integer fields by the field's C++ type."""
WIDE: Final = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
"""Integers that JSON writes as strings."""

BOOL_VALUE: Final = "google.protobuf.BoolValue"
DURATION: Final = "google.protobuf.Duration"
FIELD_MASK: Final = "google.protobuf.FieldMask"
NULL_VALUE: Final = "google.protobuf.NullValue"
TIMESTAMP: Final = "google.protobuf.Timestamp"
VALUE: Final = "google.protobuf.Value"
WRAPPERS: Final = {
    f"google.protobuf.{name}Value"
    for name in (
        "Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64"
    )
}  # fmt: skip
_TEXTUAL: Final = WRAPPERS | {DURATION, FIELD_MASK, TIMESTAMP}


@functools.cache
def fields_by_name(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Return a message's fields by both spellings of their names: proto's and JSON's."""
    fields = descriptor.fields
    return {field.json_name: field for field in fields} | {field.name: field for field in fields}


def resolve(message: Any, path: Sequence[str]) -> list[FieldDescriptor] | None:
    """Return the fields along a path of names in either spelling; None if there is no such path."""
    fields: list[FieldDescriptor] = []
    for name in path:
        field = None if message is None else fields_by_name(message).get(name)
        if field is None or (fields and fields[-1].is_repeated):
            return None
        fields.append(field)
        # Messages of google.protobuf have their own JSON forms, without their fields.
        message = None if is_well_known(field.message_type) else field.message_type
    return fields or None


def is_well_known(message: Descriptor | None) -> bool:
    """Return whether a message type is one of protobuf's own."""
    return message is not None and message.full_name.startswith("google.protobuf.")


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def is_message(field: FieldDescriptor, full_name: str) -> bool:
    """Return whether a field is a message of this type."""
    return field.message_type is not None and field.message_type.full_name == full_name


def takes_text(field: FieldDescriptor) -> bool:
    """Return whether the text of a parameter can be a value of the field."""
    return field.message_type is None or field.message_type.full_name in _TEXTUAL


def takes_null(field: FieldDescriptor) -> bool:
    """Return whether null is a value of the field, rather than no value."""
    kind = field.message_type or field.enum_type
    return kind is not None and kind.full_name in (VALUE, NULL_VALUE)
