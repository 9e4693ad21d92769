"""Print tables for people and JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct
from google.protobuf.timestamp_pb2 import Timestamp
from minion_rest_bridge.json_out import message_to_json

MAX_CELL = 60

Cells = Mapping[str, Callable[[Any], Any]]
"""Names of columns or lines, and functions that return the cell of a record."""


def fields(*names: str) -> Cells:
    """Return cells that show fields; a name may have spaces for the underscores of its field."""
    return {name: partial(show_field, name=name.replace(" ", "_")) for name in names}


def show_field(message: Any, name: str) -> str:
    """Return a field as text for people; "-" if it is unset or an empty list."""
    value = getattr(message, name)
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    match value:
        case bool():
            text = "yes" if value else "no"
        case Timestamp():
            text = show_time(value)
        case Duration():
            text = show_duration(value)
        case Struct() | ListValue():
            text = show_json(value)
        case _ if descriptor.has_presence and not message.HasField(name):
            text = "-"
        case Message():
            text = show_json(value)
        case int() | str():
            text = str(value)
        case _:
            text = ", ".join(map(str, value)) or "-"
    return text


def print_message(message: Message) -> None:
    """Print a message as the REST API writes it, on one line."""
    print(show_json(message), flush=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows below their headers, each column as wide as its widest cell."""
    texts = [[printable(str(cell)) for cell in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def print_list(response: Any, columns: Cells, *, as_json: bool) -> int:
    """Print the records of a list response, and how many there are in all; return 0.

    Args:
        response: Has its records in its first field, as every response that is a list.
        columns: The columns of the table.
        as_json: Whether to print the message instead.
    """
    if as_json:
        print_message(response)
        return 0
    records = listed(response)
    headers = [name.upper() for name in columns]
    print_table(headers, [[cell(record) for cell in columns.values()] for record in records])
    if "total" in response.DESCRIPTOR.fields_by_name and len(records) < response.total:
        print(f"{len(records)} of {response.total}")
    return 0


def listed(response: Any) -> Any:
    """Return the records of a list response: its first field."""
    return getattr(response, response.DESCRIPTOR.fields[0].name)


def print_record(record: Any, lines: Cells, *, as_json: bool) -> None:
    """Print one record: a line for each field and an empty one, or the message."""
    if as_json:
        print_message(record)
        return
    print_lines([(name, cell(record)) for name, cell in lines.items()])
    print()


def print_lines(lines: Sequence[tuple[str, Any]]) -> None:
    """Print values beside their names."""
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name.ljust(width)}  {printable(str(value))}")


def print_warning(text: str) -> None:
    """Print a warning, unless the standard error stream is closed."""
    with suppress(OSError):
        print(f"minion: {text}", file=sys.stderr)


def printable(text: str) -> str:
    """Escape characters that move the cursor or change colours: names may come from anyone."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def shorten(text: str) -> str:
    """Cut a text to fit into a table."""
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def show_time(time: Timestamp) -> str:
    """Return a time in the local time zone; "-" if it is unset."""
    if not time.seconds:
        return "-"
    try:
        local = datetime.fromtimestamp(time.seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        # The local time is beyond the years that datetime has.
        return time.ToJsonString()
    return local.isoformat(sep=" ", timespec="seconds")


def show_duration(duration: Duration) -> str:
    """Return a duration in seconds, as in 90s or 2.5s; "-" if it is unset or 0."""
    seconds = duration.ToTimedelta().total_seconds()
    return f"{seconds:g}s" if seconds else "-"


def show_json(message: Message) -> str:
    """Return a message as JSON: a Struct, ListValue or Value as the value that it holds."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(message_to_json(message), ensure_ascii=not unicode)
