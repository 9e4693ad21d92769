"""JSON Schemas of protobuf messages in their canonical JSON form."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from minion_wire.json_value import MAX_EXACT

from minion_rest_bridge.comments import Comments, bounds
from minion_rest_bridge.fields import enum_type

Schema = dict[str, Any]

REF: Final = "#/components/schemas/"
DURATION: Final = r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"
JSON_VALUE: Final = "JsonValue"


class Direction(StrEnum):
    """Which way a message goes: what is accepted is wider than what is answered."""

    REQUEST = "Request"
    RESPONSE = "Response"


_INTEGER_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: ("int32", -(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: ("int64", -(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: ("uint32", 0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: ("uint64", 0, 2**64 - 1),
}
_WIDE: Final = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)

_ANY_VALUE: Final[Schema] = {"description": "Any JSON value."}
_OBJECT: Final[Schema] = {"type": "object"}
_TEXTS: Final[dict[str, Schema]] = {
    "google.protobuf.Duration": {"type": "string", "pattern": DURATION, "examples": ["1.5s"]},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}


class SchemaBook:
    """The schemas of messages, collected as they are referred to.

    Args:
        comments: Descriptions.

    Attributes:
        schemas: By name, for `components`.
    """

    def __init__(self, comments: Comments) -> None:
        self.schemas: dict[str, Schema] = {}
        self._comments = comments
        self._owners: dict[str, tuple[str, Direction]] = {}

    def message(self, descriptor: Descriptor, direction: Direction) -> Schema:
        """Answer the schema of a message: a reference to its entry in the book."""
        special = self._special(descriptor, direction)
        if special is not None:
            return special
        name = self._name(descriptor, direction)
        if name not in self.schemas:
            # Entered before it is complete: a message may hold itself.
            self.schemas[name] = {}
            self.schemas[name].update(self.object(descriptor, direction, ()))
        return {"$ref": REF + name}

    def object(
        self, descriptor: Descriptor, direction: Direction, without: Collection[str]
    ) -> Schema:
        """Answer the schema of a message in full, without some of its fields."""
        fields = [field for field in descriptor.fields if field.name not in without]
        schema: Schema = {"type": "object"}
        if comment := self._comments.get(descriptor.full_name):
            schema["description"] = comment
        schema["properties"] = {field.json_name: self.field(field, direction) for field in fields}
        if direction is Direction.REQUEST:
            schema["additionalProperties"] = False
        else:
            required = [field.json_name for field in fields if not field.has_presence]
            if required:
                schema["required"] = required
        return schema

    def field(self, field: FieldDescriptor, direction: Direction) -> Schema:
        """Answer the schema of a field, with its comment."""
        comment = self._comments.get(field.full_name, "")
        known = bounds(comment)
        schema = self._shape(field, direction)
        if schema.get("type") == "array":
            schema |= {key: value for key, value in known.items() if key == "maxItems"}
        elif "$ref" not in schema:
            schema |= known
        return {**schema, "description": comment} if comment else schema

    def parameter(self, field: FieldDescriptor) -> Schema:
        """Answer the schema of a field as a parameter, which is text whatever its type."""
        known = bounds(self._comments.get(field.full_name, ""))
        schema = self._parameter_shape(field)
        if field.is_repeated:
            array: Schema = {"type": "array", "items": schema}
            return array | {key: value for key, value in known.items() if key == "maxItems"}
        return schema | known

    def _shape(self, field: FieldDescriptor, direction: Direction) -> Schema:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            return {"type": "object", "additionalProperties": self._single(value, direction)}
        single = self._single(field, direction)
        return {"type": "array", "items": single} if field.is_repeated else single

    def _single(self, field: FieldDescriptor, direction: Direction) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type, direction)
        if field.cpp_type in _WIDE:
            text: Schema = {"type": "string", "format": "int64", "pattern": r"^-?[0-9]{1,20}$"}
            if direction is Direction.RESPONSE:
                return text
            return text | _integer(field) | {"type": ["integer", "string"]}
        return _scalar(field)

    def _parameter_shape(self, field: FieldDescriptor) -> Schema:
        if field.message_type is None:
            return _scalar(field)
        full_name = field.message_type.full_name
        if full_name in _TEXTS:
            return dict(_TEXTS[full_name])
        return _scalar(field.message_type.fields_by_name["value"])

    def _special(self, descriptor: Descriptor, direction: Direction) -> Schema | None:
        full_name = descriptor.full_name
        if full_name in _TEXTS:
            return dict(_TEXTS[full_name])
        if full_name.startswith("google.protobuf.") and full_name.endswith("Value"):
            return self._special_value(descriptor, direction)
        match full_name:
            case "google.protobuf.Struct":
                return {**_OBJECT, "additionalProperties": self._json_value(direction)}
            case "google.protobuf.Any":
                text: Schema = {"type": "string"}
                return {**_OBJECT, "properties": {"@type": text}, "required": ["@type"]}
            case _:
                return None

    def _special_value(self, descriptor: Descriptor, direction: Direction) -> Schema:
        match descriptor.full_name:
            case "google.protobuf.Value":
                return self._json_value(direction)
            case "google.protobuf.ListValue":
                return {"type": "array", "items": self._json_value(direction)}
            case _:
                return self._single(descriptor.fields_by_name["value"], direction)

    def _json_value(self, direction: Direction) -> Schema:
        if direction is Direction.RESPONSE:
            return dict(_ANY_VALUE)
        item: Schema = {"$ref": REF + JSON_VALUE}
        self.schemas.setdefault(
            JSON_VALUE,
            {
                "description": "Any JSON value whose whole numbers a double holds exactly. "
                "Send greater ones as strings.",
                "type": ["null", "boolean", "number", "string", "array", "object"],
                "minimum": -MAX_EXACT,
                "maximum": MAX_EXACT,
                "items": item,
                "additionalProperties": item,
                "examples": ["text"],
            },
        )
        return item

    def _name(self, descriptor: Descriptor, direction: Direction) -> str:
        short = descriptor.full_name.removeprefix(f"{descriptor.file.package}.")
        owner = (descriptor.full_name, direction)
        name = short
        if self._owners.setdefault(name, owner) != owner:
            name = f"{short}.{direction}"
            self._owners[name] = owner
        return name


def _scalar(field: FieldDescriptor) -> Schema:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64"}
            return {"type": "string"}
        case FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return {"type": "number"}
        case FieldDescriptor.CPPTYPE_ENUM:
            return _enum(enum_type(field))
        case _:
            return _integer(field)


def _integer(field: FieldDescriptor) -> Schema:
    name, low, high = _INTEGER_RANGES[field.cpp_type]
    # Swagger UI would fill in the minimum.
    return {"type": "integer", "format": name, "minimum": low, "maximum": high, "examples": [1]}


def _enum(enum: EnumDescriptor) -> Schema:
    if enum.full_name == "google.protobuf.NullValue":
        return {"type": "null"}
    return {"type": "string", "enum": [value.name for value in enum.values]}
