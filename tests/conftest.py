"""What tests of every kind share."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
from support.postgresql import PostgresServer, serving


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A PostgreSQL server; each process that runs tests has its own."""
    with serving() as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Make a report fit for UTF-8: tests log lone surrogates, and pytest-xdist ends on one."""
    return _encodable((yield))


def _encodable(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_encodable, data))
        case _:
            return data
