"""Pages of lists: their bounds and tokens."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, TypeVar

from minion_server.domain import limits
from minion_server.domain.errors import Invalid

MAX_LIST_BYTES = 3 * 2**20
"""Size of a list in a response, unless its first entry is larger: most clients refuse more than
4 MiB."""


class Identified(Protocol):
    """An entry of a list, which is sorted by descending id."""

    @property
    def id(self) -> int:
        """The id."""


T = TypeVar("T", bound=Identified)


class Bounds(TypedDict):
    """The arguments that bound the store's lists."""

    limit: int
    offset: int
    below: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """The requested part of a list.

    Attributes:
        size: Number of entries.
        skip: Number of entries to skip first.
        below: Only ids lower than this.
    """

    size: int
    skip: int
    below: int | None

    @property
    def bounds(self) -> Bounds:
        """The arguments for the store, with one more entry, which shows if a page follows."""
        return {"limit": self.size + 1, "offset": self.skip, "below": self.below}

    def write(
        self, entries: Sequence[T], messages: Any, to_message: Callable[[T, Any], None]
    ) -> str:
        """Write the entries of the page, and return the token of the next page, or "".

        Args:
            entries: The entries that the store returned.
            messages: The repeated field to write into.
            to_message: Writes an entry into a message.
        """
        count = write_some(entries[: self.size], messages, to_message)
        return to_page_token(entries[count - 1].id) if count < len(entries) else ""


def write_some(entries: Sequence[T], messages: Any, to_message: Callable[[T, Any], None]) -> int:
    """Write as many entries as fit into one response, at least one, and return how many."""
    size = 0
    for count, entry in enumerate(entries):
        message = messages.add()
        to_message(entry, message)
        size += message.ByteSize()
        # A single entry is always small enough (see `fitting`).
        if count and size > MAX_LIST_BYTES:
            del messages[-1]
            return count
    return len(entries)


def read_paging(request: Any) -> Paging:
    """Parse `page_size`, `page_token` and `skip` of a request.

    Raises:
        Invalid: A value is not valid.
    """
    size = request.page_size if request.HasField("page_size") else limits.DEFAULT_PAGE_SIZE
    limits.check_range("page_size", size, 1, limits.MAX_PAGE_SIZE)
    limits.check_range("skip", request.skip, 0, limits.MAX_INT32)
    below = from_page_token(request.page_token) if request.page_token else None
    return Paging(size=size, skip=request.skip, below=below)


def to_page_token(job_id: int) -> str:
    """Return the token of the page that starts below an id."""
    return base64.urlsafe_b64encode(f"below:{job_id}".encode()).decode()


def from_page_token(token: str) -> int:
    """Return the id in a token of `to_page_token`.

    Raises:
        Invalid: The token is not valid.
    """
    try:
        word, _, number = (
            base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(":")
        )
        job_id = int(number)
    except (binascii.Error, ValueError):
        word, job_id = "", 0
    if word != "below" or not 0 < job_id <= limits.MAX_INT64:
        raise Invalid("page_token", "is not the next_page_token of an earlier page")
    return job_id
