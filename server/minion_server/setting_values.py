"""From texts to the values of settings; ValueError tells what is wrong with one."""

from __future__ import annotations

from pathlib import Path

MAX_PORT = 65_535
MAX_SLOTS = 10_000
MAX_SECONDS = 10 * 365 * 24 * 3_600
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off", ""})


def parse_text(text: str) -> str:
    """Read any text but the empty one."""
    if not text:
        raise ValueError("must not be empty")
    return text


def parse_path(text: str) -> Path:
    """Read a path; `~` is the home directory."""
    return Path(parse_text(text)).expanduser()


def parse_flag(text: str) -> bool:
    """Read a yes or no."""
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError("must be true or false")


def parse_number(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def parse_count(text: str) -> int:
    """Read a number of slots."""
    number = parse_number(text)
    if not 0 <= number <= MAX_SLOTS:
        raise ValueError(f"must be in 0..{MAX_SLOTS}")
    return number


def parse_priority(text: str) -> int:
    """Read a priority."""
    number = parse_number(text)
    if not -(2**31) <= number < 2**31:
        raise ValueError("must be an integer of 32 bits")
    return number


def parse_seconds(text: str) -> float:
    """Read a span of time in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("must be a number of seconds") from None
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"must be in 0..{MAX_SECONDS} seconds")
    return seconds


def parse_interval(text: str) -> float:
    """Read a span of time in seconds that is longer than nothing."""
    seconds = parse_seconds(text)
    if not seconds:
        raise ValueError("must be more than 0 seconds")
    return seconds


def parse_address(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, `[V6]:PORT` or `:PORT`, the last for all addresses."""
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text.isdecimal() or int(port_text) > MAX_PORT:
        raise ValueError(f"must be HOST:PORT, with a port in 0..{MAX_PORT}")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port_text)  # noqa: S104 - asked for


def parse_limit(text: str) -> tuple[str, int]:
    """Read `TASK=N`."""
    task, equals, number = text.rpartition("=")
    if not equals or not task:
        raise ValueError("must be TASK=N")
    return task, parse_count(number)


def parse_level(text: str) -> str:
    """Read a level of logging."""
    level = text.upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("must be one of debug, info, warning, error")
    return level
