"""How commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from minion_rest_bridge.json_out import message_to_json


def print_message(message: Message) -> None:
    """Print a message as the REST API writes it, on one line."""
    print(show_json(message), flush=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their headers, each column as wide as it must be."""
    texts = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(headers))]
    for row in texts:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def print_warning(text: str) -> None:
    """Print what did not go as asked."""
    print(f"minion: {text}", file=sys.stderr)


def show_time(time: Timestamp) -> str:
    """Write a time for people, in their time zone; "-" if it is unset."""
    if not time.seconds:
        return "-"
    local = datetime.fromtimestamp(time.seconds).astimezone()
    return local.isoformat(sep=" ", timespec="seconds")


def show_json(message: Message) -> str:
    """Write a message as JSON: a Struct, ListValue or Value as what it stands for."""
    return json.dumps(message_to_json(message), ensure_ascii=False)
