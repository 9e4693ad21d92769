"""The plugin `duplicate_pages`: pages that several archives have in common, such as credits."""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256
from typing import Any, Final

from minion_server.library.archive import open_archive
from minion_server.library.errors import LibraryError, PageError
from minion_server.library.index import Entry, Index
from minion_server.library.plugins import Parameter, Plugin, PluginCall, PluginKind

_Place = tuple[str, int]


def run(call: PluginCall) -> dict[str, Any]:
    """Return the pages whose files are equal, byte for byte.

    Args:
        call: `arg` is the id of an archive, whose own pages are looked for in all others; "" means
            all archives.

    Returns:
        `pages`, the most frequent first: a list of `{"id": ..., "page": ...}` for each; and
        `errors`, a line for each archive or page that cannot be read.
    """
    index = Index(call.settings.directory)
    entries = index.entries()
    wanted = index.entry(call.arg).id if call.arg else None
    found: dict[bytes, list[_Place]] = defaultdict(list)
    errors: list[str] = []
    for done, entry in enumerate(entries, start=1):
        _hash_pages(call, entry, found, errors)
        call.progress(done, len(entries))
    repeated = (
        places
        for places in found.values()
        if len(places) > 1 and (wanted is None or any(place[0] == wanted for place in places))
    )
    frequent = sorted(repeated, key=len, reverse=True)[: int(call.parameters["max_pages"])]
    pages = [[{"id": one, "page": number} for one, number in places] for places in frequent]
    return {"pages": pages, "errors": errors}


PLUGIN: Final = Plugin(
    namespace="duplicate_pages",
    name="Duplicate pages",
    description="Finds pages that stand in several archives, or twice in one.",
    kind=PluginKind.SCRIPT,
    run=run,
    parameters={
        "max_pages": Parameter(default=1000, description="Pages that the result lists at most."),
    },
)


def _hash_pages(
    call: PluginCall, entry: Entry, found: dict[bytes, list[_Place]], errors: list[str]
) -> None:
    try:
        with open_archive(call.settings.directory / entry.file, call.settings.limits) as archive:
            numbered = enumerate(archive.pages, start=1)
            for number, page in sorted(numbered, key=lambda item: item[1].position):
                try:
                    digest = sha256(archive.read(page)).digest()
                except PageError as error:
                    errors.append(f"{entry.file}: page {number}: {error}")
                else:
                    found[digest].append((entry.id, number))
    except LibraryError as error:
        errors.append(f"{entry.file}: {error}")
