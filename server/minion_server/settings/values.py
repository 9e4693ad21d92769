"""Parsers of settings, environment variables and command-line arguments.

Each raises a ValueError with the expected format; `refusal` adds the text that it got.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from minion_server.domain.limits import MAX_INT32, MAX_INT64, MAX_SPAN

MAX_PORT: Final = 65_535
MAX_SLOTS: Final = 10_000
MAX_SHOWN: Final = 60
"""Characters of an invalid text that an error shows."""
TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS: Final = frozenset({"0", "false", "no", "off", ""})

_TIME_UNITS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SIZE_UNITS: Final = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|[smhdw])", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{0,18}\.?[0-9]{1,18}(?:e[+-]?[0-9]{1,3})?", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,18}) ?([kmgt]ib|b?)", re.ASCII | re.IGNORECASE)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)

T = TypeVar("T")


def refusal(error: ValueError, text: str) -> str:
    """Return the message of a parser's error with the text that it got, cut to `MAX_SHOWN`."""
    shown = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
    return f"{error}, got {shown!r}"


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a parser that raises ArgumentTypeError, whose message argparse shows."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise ArgumentTypeError(refusal(error, text)) from None

    return read


def parse_unicode(text: str) -> str:
    """Parse any Unicode text; arguments and environment variables may contain other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected UTF-8") from None
    return text


def parse_text(text: str) -> str:
    """Parse any text that is not empty."""
    if not text:
        raise ValueError("expected a text that is not empty")
    return parse_unicode(text)


def parse_path(text: str) -> Path:
    """Parse a path; `~` is the home directory."""
    if not text or "\0" in text:
        raise ValueError("expected a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("expected a path of an existing user") from None


def parse_flag(text: str) -> bool:
    """Parse a boolean."""
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError("expected true or false")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers in `low..high`."""

    def read(text: str) -> int:
        word = text.strip()
        number = int(word) if _WHOLE.fullmatch(word) else None
        if number is None or not low <= number <= high:
            raise ValueError(f"expected a whole number in {low}..{high}")
        return number

    return read


parse_count = whole_number(0, MAX_SLOTS)
parse_natural = whole_number(0, MAX_INT32)
parse_int32 = whole_number(-MAX_INT32 - 1, MAX_INT32)
parse_id = whole_number(1, MAX_INT64)


def parse_duration(text: str) -> timedelta:
    """Parse a duration: 90 (seconds), 1.5s, 500ms, 10m, 2h, 1d, 1w, 1h30m."""
    word = text.strip()
    if _SECONDS.fullmatch(word):
        seconds = float(word)
    elif _DURATION.fullmatch(word):
        seconds = sum(float(number) * _TIME_UNITS[unit] for number, unit in _PART.findall(word))
    else:
        raise ValueError("expected seconds, or a duration such as 10s, 5m, 2h or 1d")
    # Compared as a float, since a timedelta overflows much earlier.
    if seconds > MAX_SPAN.total_seconds():
        raise ValueError(f"expected at most {MAX_SPAN.days}d")
    return timedelta(seconds=seconds)


def parse_positive_duration(text: str) -> timedelta:
    """Parse a duration above zero."""
    duration = parse_duration(text)
    if not duration:
        raise ValueError("expected more than 0 seconds")
    return duration


def parse_seconds(text: str) -> float:
    """Parse a duration and return its seconds."""
    return parse_duration(text).total_seconds()


def parse_interval(text: str) -> float:
    """Parse a duration above zero and return its seconds."""
    return parse_positive_duration(text).total_seconds()


def parse_size(text: str) -> int:
    """Parse a number of bytes above zero: 1000000, 64KiB, 8GiB."""
    match = _SIZE.fullmatch(text.strip())
    size = int(match[1]) * _SIZE_UNITS[match[2].lower()] if match else 0
    if not 0 < size <= MAX_INT64:
        raise ValueError("expected a number of bytes above zero, or a size such as 64KiB or 8GiB")
    return size


def parse_address(text: str) -> tuple[str, int]:
    """Parse `HOST:PORT`, `[IPV6]:PORT`, or `:PORT` for all IPv4 addresses."""
    host, colon, port = parse_unicode(text).rpartition(":")
    if not colon or not _is_port(port):
        raise ValueError(f"expected HOST:PORT, with a port in 0..{MAX_PORT}")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("expected HOST:PORT, with the name of a host") from None
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - asked for


def parse_target(text: str) -> str:
    """Parse the address of a server, `HOST:PORT` or another name that gRPC resolves."""
    host, _, port = parse_text(text).rpartition(":")
    odd = any(one.isspace() or one == "\0" for one in text)
    if odd or text.startswith(("http:", "https:", ":")):
        raise ValueError("expected HOST:PORT")
    # gRPC would connect to another port if this one is too large.
    if host and port.isdecimal() and "/" not in host and not _is_port(port):
        raise ValueError(f"expected HOST:PORT, with a port in 0..{MAX_PORT}")
    return text


def _is_port(text: str) -> bool:
    return bool(_WHOLE.fullmatch(text)) and text.isdecimal() and int(text) <= MAX_PORT


def parse_limit(text: str) -> tuple[str, int]:
    """Parse `TASK=N`."""
    task, equals, number = text.rpartition("=")
    if not equals or not task:
        raise ValueError("expected TASK=N")
    return parse_text(task), parse_count(number)


def parse_level(text: str) -> str:
    """Parse a log level."""
    level = text.upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("expected debug, info, warning or error")
    return level
