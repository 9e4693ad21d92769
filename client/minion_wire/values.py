"""Convert JSON values, which follow the rules of `json_value`, to messages and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from minion_wire.json_value import MAX_EXACT, JsonValue

NumberReader = Callable[[float], JsonValue]


def to_value(item: JsonValue, value: Value) -> None:
    """Write a plain JSON value into an empty message."""
    match item:
        case None:
            value.null_value = NULL_VALUE
        case bool():
            value.bool_value = item
        case int() | float():
            value.number_value = item
        case str():
            value.string_value = item
        case list():
            to_list(item, value.list_value)
        case dict():
            to_struct(item, value.struct_value)
        case _:
            raise TypeError(f"{type(item).__name__} is not a JSON value")


def to_struct(item: Mapping[str, JsonValue], struct: Struct) -> None:
    """Write a JSON object into an empty message."""
    struct.SetInParent()
    fields = struct.fields
    for key, entry in item.items():
        to_value(entry, fields[key])


def to_list(items: Sequence[JsonValue], values: ListValue) -> None:
    """Write a JSON array into an empty message."""
    values.SetInParent()
    add = values.values.add
    for item in items:
        to_value(item, add())


def from_number(number: float) -> int | float:
    """Read a number; a whole one becomes an int if it is exact."""
    # -0.0 becomes 0: JSON readers disagree about it.
    return int(number) if number.is_integer() and abs(number) <= MAX_EXACT else number


def from_value(value: Value, read_number: NumberReader = from_number) -> JsonValue:
    """Read a JSON value."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return read_number(value.number_value)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value, read_number)
        case "list_value":
            return from_list(value.list_value, read_number)
        case _:
            return None


def from_struct(struct: Struct, read_number: NumberReader = from_number) -> dict[str, JsonValue]:
    """Read a JSON object, and sort its keys: a protobuf map has no order."""
    return {key: from_value(value, read_number) for key, value in sorted(struct.fields.items())}


def from_list(values: ListValue, read_number: NumberReader = from_number) -> list[JsonValue]:
    """Read a JSON array."""
    return [from_value(value, read_number) for value in values.values]
