"""How commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from minion_rest_bridge.json_out import message_to_json

MAX_CELL = 60


def print_message(message: Message) -> None:
    """Print a message as the REST API writes it, on one line."""
    print(show_json(message), flush=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their headers, each column as wide as it must be."""
    texts = [[printable(str(cell)) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(headers))]
    for row in texts:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def print_list(response: Any, columns: Mapping[str, Callable[[Any], Any]], *, as_json: bool) -> int:
    """Print what a response lists, and how much of all that is; return the exit status, 0.

    Args:
        response: Lists records in its first field, as every response that is a list does.
        columns: The headers, and what returns the cell of a record.
        as_json: Whether to print the message instead.
    """
    if as_json:
        print_message(response)
        return 0
    records = listed(response)
    print_table([*columns], [[cell(record) for cell in columns.values()] for record in records])
    if "total" in response.DESCRIPTOR.fields_by_name and len(records) < response.total:
        print(f"{len(records)} of {response.total}")
    return 0


def listed(response: Any) -> Any:
    """Return what a response lists: the first field of every response that is a list."""
    return getattr(response, response.DESCRIPTOR.fields[0].name)


def print_fields(fields: Sequence[tuple[str, Any]]) -> None:
    """Print one thing, a line for each of its fields."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name.ljust(width)}  {printable(str(value))}")
    print()


def print_warning(text: str) -> None:
    """Print what did not go as asked; a standard error stream that is gone is no error itself."""
    with suppress(OSError):
        print(f"minion: {text}", file=sys.stderr)


def printable(text: str) -> str:
    """Escape what moves a terminal's cursor or changes its colours: names come from others."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def shorten(text: str) -> str:
    """Cut a text so that it fits into a table."""
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def show_time(time: Timestamp) -> str:
    """Write a time for people, in their time zone; "-" if it is unset."""
    if not time.seconds:
        return "-"
    try:
        local = datetime.fromtimestamp(time.seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        # Near the ends of the calendar, which the time zone may pass.
        return time.ToJsonString()
    return local.isoformat(sep=" ", timespec="seconds")


def show_duration(duration: Duration) -> str:
    """Write a span of time for people: 90s, 2.5s; "-" if it is unset."""
    seconds = duration.ToTimedelta().total_seconds()
    return f"{seconds:g}s" if seconds else "-"


def show_json(message: Message) -> str:
    """Write a message as JSON: a Struct, ListValue or Value as what it stands for."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(message_to_json(message), ensure_ascii=not unicode)
