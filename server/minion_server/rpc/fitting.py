"""Limits messages to the size and depth that clients can read by default.

Values that this server accepts are always within the limits, but other programs and older versions
may have stored larger or deeper ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from minion_wire import values
from minion_wire.json_value import JsonValue, nests_too_deep
from minion_wire.sizes import MAX_PART_BYTES

TOO_DEEP = "(nested too deeply to be shown)"
_ID_BYTES = 10
_LEAST_IDS = 1_000


def put_list(items: Sequence[JsonValue], message: ListValue) -> None:
    """Write a JSON array; a text in its place if it is nested too deeply."""
    values.to_list([TOO_DEEP] if nests_too_deep(list(items)) else items, message)


def put_struct(entries: Mapping[str, JsonValue], message: Struct) -> None:
    """Write a JSON object; a text in its place if it is nested too deeply."""
    shown = {"error": TOO_DEEP} if nests_too_deep(dict(entries)) else entries
    values.to_struct(shown, message)


def put_value(item: JsonValue, message: Value) -> None:
    """Write a JSON value; a text in its place if it is nested too deeply."""
    values.to_value(TOO_DEEP if nests_too_deep(item) else item, message)


def fit(message: Any, values_in: Sequence[str], ids_in: str | None = None) -> None:
    """Shorten a message to `MAX_PART_BYTES`.

    Args:
        message: The message.
        values_in: Names of its fields with JSON values, which are replaced by texts, largest first.
        ids_in: Name of its field with an unlimited number of ids, of which the first are kept.
    """
    if message.ByteSize() <= MAX_PART_BYTES:
        return
    if ids_in is not None:
        ids = list(getattr(message, ids_in))
        message.ClearField(ids_in)
        room = max(0, MAX_PART_BYTES - message.ByteSize()) // _ID_BYTES
        getattr(message, ids_in).extend(ids[: max(room, _LEAST_IDS)])
    for name in sorted(values_in, key=lambda name: -int(getattr(message, name).ByteSize())):
        if message.ByteSize() <= MAX_PART_BYTES:
            return
        field = getattr(message, name)
        text = f"({field.ByteSize()} bytes: too large to be shown)"
        message.ClearField(name)
        match field:
            case ListValue():
                values.to_list([text], getattr(message, name))
            case Struct():
                values.to_struct({"error": text}, getattr(message, name))
            case _:
                values.to_value(text, getattr(message, name))
