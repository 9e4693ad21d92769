"""Counts tags and sums of the library into a file that web pages can read."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import orjson

from minion_server.library.index import Index
from minion_server.library.settings import HIDDEN, Settings
from minion_server.library.thumbnails import write

# An archive that has no others counts as untagged: programs set these by themselves.
_BASIC_NAMESPACES: Final = frozenset(
    {
        "artist",
        "date_added",
        "event",
        "group",
        "language",
        "parody",
        "series",
        "source",
        "timestamp",
    }
)


def build_stats(settings: Settings) -> dict[str, int]:
    """Write `.minion/stats.json`, and return its totals.

    The file has `totals` and `tags`, the most frequent first: `text`, `namespace` and `weight`, the
    number of archives.

    Raises:
        LibraryError: The index cannot be read or the file written.
    """
    counts: Counter[str] = Counter()
    totals = dict.fromkeys(("archives", "pages", "bytes", "untagged"), 0)
    for entry in Index(settings.directory).entries():
        totals["archives"] += 1
        totals["pages"] += entry.pages
        totals["bytes"] += entry.size
        totals["untagged"] += all(_split(tag)[0] in _BASIC_NAMESPACES for tag in entry.tags)
        counts.update({tag.lower() for tag in entry.tags})
    totals["tags"] = len(counts)
    tags = [
        _tag(tag, weight) for tag, weight in sorted(counts.items(), key=lambda i: (-i[1], i[0]))
    ]
    content = orjson.dumps({"totals": totals, "tags": tags}, option=orjson.OPT_INDENT_2)
    write(settings.directory / HIDDEN / "stats.json", content)
    return totals


def _split(tag: str) -> tuple[str, str]:
    namespace, colon, text = tag.partition(":")
    return (namespace, text) if colon else ("", tag)


def _tag(tag: str, weight: int) -> dict[str, Any]:
    namespace, text = _split(tag)
    return {"text": text, "namespace": namespace, "weight": weight}
