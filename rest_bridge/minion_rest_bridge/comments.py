"""The comments of the .proto files, which descriptors at run time do not have.

protoc writes them into `minion.binpb`, which stands beside the generated modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Final, cast

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from minion_rest_bridge.rules import PACKAGE

DESCRIPTOR_SET: Final = "minion.binpb"

Comments = Mapping[str, str]
"""Comments by the full names of services, methods, messages and fields."""


def load_comments(package: str = PACKAGE) -> Comments:
    """Return the comments of a package's .proto files.

    Raises:
        FileNotFoundError: The package has no descriptor set.
    """
    data = resources.files(package).joinpath(DESCRIPTOR_SET).read_bytes()
    files = FileDescriptorSet.FromString(data).file
    return {
        name: text for file in files if file.package == package for name, text in _of_file(file)
    }


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        if location.leading_comments:
            lines = location.leading_comments.strip().splitlines()
            yield _name(file, location.path), "\n".join(line.strip() for line in lines)


def _name(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """Return the full name at a path of field numbers, each with an index (SourceCodeInfo)."""
    names, node = [file.package], cast("Any", file)
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = node.DESCRIPTOR.fields_by_number[number]
        if not field.is_repeated or field.message_type is None:
            break
        node = getattr(node, field.name)[index]
        names.append(node.name)
    return ".".join(names)
