"""JSON Schemas of protobuf messages in their canonical JSON form."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from minion.v1 import options_pb2
from minion_wire.json_value import MAX_EXACT

from minion_rest_bridge import fields

Schema = dict[str, Any]
Comments = Mapping[str, str]
"""Comments by the full names of services, methods, messages and fields."""

REF: Final = "#/components/schemas/"
JSON_VALUE: Final = "JsonValue"


class Direction(StrEnum):
    """Directions of messages: requests can have more forms than responses."""

    REQUEST = "Request"
    RESPONSE = "Response"


_FORMATS: Final = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
}
_KEYWORDS: Final = ("minLength", "maxLength", "minimum", "maximum")
_WIDE: Final[Schema] = {"type": "string", "format": "int64", "pattern": r"^-?[0-9]{1,20}$"}
_TEXTS: Final[dict[str, Schema]] = {
    fields.DURATION: {
        "type": "string",
        "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$",
        "examples": ["1.5s"],
    },
    fields.FIELD_MASK: {"type": "string"},
    fields.TIMESTAMP: {"type": "string", "format": "date-time"},
}
_JSON_ITEM: Final[Schema] = {"$ref": REF + JSON_VALUE}
_JSON_VALUE: Final[Schema] = {
    "description": "Any JSON value whose whole numbers a double holds exactly. "
    "Send greater ones as strings.",
    "type": ["null", "boolean", "number", "string", "array", "object"],
    "minimum": -MAX_EXACT,
    "maximum": MAX_EXACT,
    "items": _JSON_ITEM,
    "additionalProperties": _JSON_ITEM,
    "examples": ["text"],
}


class SchemaBook:
    """The schemas of messages by name, collected when they are referred to."""

    def __init__(self, comments: Comments) -> None:
        self.schemas: dict[str, Schema] = {}
        self._comments = comments
        self._owners: dict[str, tuple[str, Direction]] = {}

    def message(self, descriptor: Descriptor, direction: Direction) -> Schema:
        """Return the schema of a message: a reference to its entry in the book."""
        special = self._special(descriptor, direction)
        if special is not None:
            return special
        name = self._name(descriptor, direction)
        if name not in self.schemas:
            # Added before it is complete: a message type can contain itself.
            self.schemas[name] = {}
            self.schemas[name].update(self.object(descriptor, direction))
        return {"$ref": REF + name}

    def object(
        self, descriptor: Descriptor, direction: Direction, without: Collection[str] = ()
    ) -> Schema:
        """Return the full schema of a message, without some of its fields."""
        kept = [field for field in descriptor.fields if field.name not in without]
        schema: Schema = {"type": "object"}
        if comment := self._comments.get(descriptor.full_name):
            schema["description"] = comment
        schema["properties"] = {field.json_name: self.field(field, direction) for field in kept}
        if direction is Direction.REQUEST:
            schema["additionalProperties"] = False
        elif required := [field.json_name for field in kept if not field.has_presence]:
            schema["required"] = required
        return schema

    def field(self, field: Any, direction: Direction) -> Schema:
        """Return the schema of a field, with its comment."""
        if fields.is_map(field):
            value = field.message_type.fields_by_name["value"]
            schema = {"type": "object", "additionalProperties": self._single(value, direction)}
        else:
            schema = _bounded(field, self._single(field, direction))
        comment = self._comments.get(field.full_name)
        return {**schema, "description": comment} if comment else schema

    def _single(self, field: FieldDescriptor, direction: Direction) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type, direction)
        if field.cpp_type not in fields.WIDE:
            return _scalar(field)
        if direction is Direction.RESPONSE:
            return dict(_WIDE)
        return _WIDE | _scalar(field) | {"type": ["integer", "string"]}

    def _special(self, descriptor: Descriptor, direction: Direction) -> Schema | None:
        name = descriptor.full_name
        match name:
            case "google.protobuf.Any":
                properties = {"@type": {"type": "string"}}
                schema: Schema = {
                    "type": "object",
                    "properties": properties,
                    "required": ["@type"],
                }
            case "google.protobuf.ListValue":
                schema = {"type": "array", "items": self._json_value(direction)}
            case "google.protobuf.Struct":
                schema = {"type": "object", "additionalProperties": self._json_value(direction)}
            case "google.protobuf.Value":
                schema = self._json_value(direction)
            case _ if name in fields.WRAPPERS:
                schema = self._single(descriptor.fields_by_name["value"], direction)
            case _:
                return dict(_TEXTS[name]) if name in _TEXTS else None
        return schema

    def _json_value(self, direction: Direction) -> Schema:
        if direction is Direction.RESPONSE:
            return {"description": "Any JSON value."}
        self.schemas.setdefault(JSON_VALUE, _JSON_VALUE)
        return dict(_JSON_ITEM)

    def _name(self, descriptor: Descriptor, direction: Direction) -> str:
        name = descriptor.full_name.removeprefix(f"{descriptor.file.package}.")
        owner = (descriptor.full_name, direction)
        if self._owners.setdefault(name, owner) != owner:
            name = f"{name}.{direction}"
            self._owners[name] = owner
        return name


def parameter_schema(field: FieldDescriptor) -> Schema:
    """Return the schema of a field as a parameter, which is always text."""
    if field.message_type is None:
        schema = _scalar(field)
    elif field.message_type.full_name in _TEXTS:
        schema = dict(_TEXTS[field.message_type.full_name])
    else:
        schema = _scalar(field.message_type.fields_by_name["value"])
    bounded = _bounded(field, schema)
    # The size of a request's head is a lower limit than that of an array.
    bounded.pop("maxItems", None)
    return bounded


def _bounded(field: FieldDescriptor, schema: Schema) -> Schema:
    """Return the schema of a field with the bounds in its options."""
    bounds = field.GetOptions().Extensions[options_pb2.bounds]
    # Most bounds have the names of JSON Schema keywords; there are none for sizes and Durations.
    known = {bound.json_name: value for bound, value in bounds.ListFields()}
    keywords: Schema = {name: known[name] for name in _KEYWORDS if name in known}
    if bounds.one_of:
        keywords["enum"] = list(bounds.one_of)
    if not field.is_repeated:
        return schema | keywords
    array = {"maxItems": bounds.max_items} if bounds.max_items else {}
    return {"type": "array", "items": schema | keywords, **array}


def _scalar(field: Any) -> Schema:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            is_bytes = field.type == FieldDescriptor.TYPE_BYTES
            return {"type": "string", **({"contentEncoding": "base64"} if is_bytes else {})}
        case FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return {"type": "number"}
        case FieldDescriptor.CPPTYPE_ENUM:
            return _enum(field.enum_type)
        case kind:
            values = fields.INTEGERS[kind]
            limits = {"minimum": values[0], "maximum": values[-1]}
            # Without an example, Swagger UI fills in the minimum.
            return {"type": "integer", "format": _FORMATS[kind], **limits, "examples": [1]}


def _enum(enum: EnumDescriptor) -> Schema:
    if enum.full_name == fields.NULL_VALUE:
        return {"type": "null"}
    return {"type": "string", "enum": [value.name for value in enum.values]}
