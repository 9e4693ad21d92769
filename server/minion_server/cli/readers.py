"""Readers of single arguments: what they refuse, argparse tells by the argument's name."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from minion_server.domain.limits import MAX_INT32, MAX_INT64, MAX_SPAN


def integer(low: int, high: int) -> Callable[[str], int]:
    """Answer a reader of whole numbers in `low..high`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number in {low}..{high}, not {text!r}"
            )
        return number

    return read


job_id = integer(1, MAX_INT64)
int32 = integer(-MAX_INT32 - 1, MAX_INT32)
count = integer(0, MAX_INT32)


def seconds(text: str) -> float:
    """Read a span of time in seconds."""
    longest = MAX_SPAN.total_seconds()
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= longest:
        raise argparse.ArgumentTypeError(f"must be 0 to {longest:.0f} seconds, not {text!r}")
    return number


def text(argument: str) -> str:
    """Read a text, which must be Unicode: a shell may give any bytes."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"must be UTF-8, not {argument!a}") from None
    return argument
