"""The comments of the .proto files, which descriptors at run time do not have.

protoc writes them into `minion.binpb`, which stands beside the generated modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from minion_rest_bridge.rules import PACKAGE

DESCRIPTOR_SET: Final = "minion.binpb"

Comments = Mapping[str, str]
"""Comments by the full names of what they stand at."""

_COUNT: Final = r"([0-9][0-9,]*)"
_LENGTHS: Final = re.compile(rf"\b{_COUNT} to {_COUNT} characters")
_MOST_CHARACTERS: Final = re.compile(rf"\bAt most {_COUNT} characters")
_RANGE: Final = re.compile(rf"\b{_COUNT} to {_COUNT}\.")
_MINIMUM: Final = re.compile(rf"\bfrom {_COUNT}\.")
_MOST: Final = re.compile(rf"\bAt most {_COUNT}\.")


def load_comments(package: str = PACKAGE) -> Comments:
    """Answer the comments of a package's .proto files.

    Raises:
        FileNotFoundError: The package has no descriptor set.
    """
    data = resources.files(package).joinpath(DESCRIPTOR_SET).read_bytes()
    files = FileDescriptorSet.FromString(data).file
    return {
        name: text for file in files if file.package == package for name, text in _of_file(file)
    }


def bounds(comment: str) -> dict[str, Any]:
    """Answer the bounds that a field's comment states, as JSON Schema keywords.

    The phrases are `1 to 255 characters`, `At most 255 characters`, `1 to 100.`, `from 1.` and
    `At most 100.` (entries of a list).
    """
    if match := _LENGTHS.search(comment):
        return {"minLength": _number(match[1]), "maxLength": _number(match[2])}
    if match := _MOST_CHARACTERS.search(comment):
        return {"maxLength": _number(match[1])}
    if match := _RANGE.search(comment):
        return {"minimum": _number(match[1]), "maximum": _number(match[2])}
    if match := _MINIMUM.search(comment):
        return {"minimum": _number(match[1])}
    if match := _MOST.search(comment):
        return {"maxItems": _number(match[1])}
    return {}


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name is not None and location.leading_comments:
            lines = (line.strip() for line in location.leading_comments.strip().splitlines())
            yield name, "\n".join(lines)


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Answer the full names in a file by their paths (descriptor.proto, SourceCodeInfo)."""
    messages = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
    services = FileDescriptorProto.SERVICE_FIELD_NUMBER
    methods = ServiceDescriptorProto.METHOD_FIELD_NUMBER
    yield from _message_names(file.message_type, file.package, (messages,))
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (services, index), name
        for number, method in enumerate(service.method):
            yield (services, index, methods, number), f"{name}.{method.name}"


def _message_names(
    messages: Iterable[DescriptorProto], scope: str, path: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], str]]:
    nested = DescriptorProto.NESTED_TYPE_FIELD_NUMBER
    fields = DescriptorProto.FIELD_FIELD_NUMBER
    for index, message in enumerate(messages):
        name = f"{scope}.{message.name}"
        yield (*path, index), name
        for number, field in enumerate(message.field):
            yield (*path, index, fields, number), f"{name}.{field.name}"
        yield from _message_names(message.nested_type, name, (*path, index, nested))
