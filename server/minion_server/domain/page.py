"""Pages of lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Entry]):
    """A page of a list, newest first; `total` counts all entries that match the filter."""

    entries: Sequence[Entry]
    total: int
