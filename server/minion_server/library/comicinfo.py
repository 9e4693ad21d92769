"""The plugin `comicinfo`: metadata that stands in the archive itself.

Reads `ComicInfo.xml` (the Anansi Project's schema 2.0) or else `info.json`, at any depth.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final
from xml.parsers import expat

from minion_server.library.archive import open_archive
from minion_server.library.metadata import Metadata, split_tags
from minion_server.library.plugins import (
    MetadataCall,
    NoMetadataError,
    Plugin,
    PluginError,
    PluginKind,
)

# No honest file of metadata is as long as this.
_LONGEST: Final = 2**20
# Elements of the XML and their namespaces of tags, as LANraragi names them.
_NAMESPACES: Final = {
    "Writer": "group",
    "Penciller": "artist",
    "Web": "source",
    "Series": "series",
    "Characters": "character",
    "Publisher": "publisher",
    "LanguageISO": "language",
    "Genre": "",
    "Tags": "",
}
_TEXTS: Final = ("Title", "Summary")


def run(call: MetadataCall) -> Metadata:
    """Return the metadata that an archive has inside.

    Raises:
        NoMetadataError: There is none.
        PluginError: It cannot be read.
    """
    with open_archive(call.path, call.settings.limits) as archive:
        if content := archive.read_file("ComicInfo.xml", _LONGEST):
            return _from_xml(content)
        if content := archive.read_file("info.json", _LONGEST):
            return _from_json(content)
    raise NoMetadataError("The archive has no ComicInfo.xml and no info.json.")


PLUGIN: Final = Plugin(
    namespace="comicinfo",
    name="ComicInfo",
    description="Reads ComicInfo.xml or info.json inside of the archive.",
    kind=PluginKind.METADATA,
    run=run,
)


def _from_xml(content: bytes) -> Metadata:
    values = dict.fromkeys((*_NAMESPACES, *_TEXTS), "")
    path: list[str] = []

    def start(name: str, _attributes: object) -> None:
        path.append(name)

    def text(data: str) -> None:
        # Children of the root alone: a page's element may have the name of another.
        if len(path) == 2 and path[1] in values:  # noqa: PLR2004 - the root and its child
            values[path[1]] += data

    def refuse(*_: object) -> None:
        # A document type can define entities that grow without bound.
        raise PluginError("ComicInfo.xml cannot be read: it has a document type.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: path.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)  # noqa: FBT003 - its signature
    except expat.ExpatError as error:
        raise PluginError(f"ComicInfo.xml cannot be read: {error}.") from error
    return Metadata(
        tags=tuple(
            f"{namespace}:{tag}" if namespace else tag
            for element, namespace in _NAMESPACES.items()
            for tag in split_tags(values[element])
        ),
        title=values["Title"].strip() or None,
        summary=values["Summary"].strip() or None,
    )


def _from_json(content: bytes) -> Metadata:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PluginError(f"info.json cannot be read: {error}.") from error
    if not isinstance(data, dict):
        raise PluginError("info.json cannot be read: it is no JSON object.")
    # Some programs put everything under one key.
    for key in ("gallery_info", "manga_info"):
        if isinstance(data.get(key), dict):
            data = data[key]
    title, summary = (_text(data.get(key)) for key in ("title", "summary"))
    return Metadata(
        tags=tuple(dict.fromkeys(tag for tag in _tags(data.get("tags")))),
        title=title or None,
        summary=summary or None,
    )


def _tags(value: Any) -> Iterator[str]:
    """Yield tags given as a text, a list, or an object of lists by namespace."""
    if isinstance(value, str):
        yield from split_tags(value)
    elif isinstance(value, list):
        yield from _each(value)
    elif isinstance(value, dict):
        for namespace, tags in value.items():
            for tag in _each(tags if isinstance(tags, list) else [tags]):
                yield tag if namespace == "misc" else f"{namespace}:{tag}"


def _each(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from split_tags(_text(value))


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
