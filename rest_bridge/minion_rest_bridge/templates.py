"""Path templates of google.api.http, and the tree that finds the one a request path matches.

The grammar and the order of precedence are those of google/api/http.proto:

    Template = "/" Segments [ Verb ] ;        Segments = Segment { "/" Segment } ;
    Segment  = "*" | "**" | LITERAL | Variable ;
    Variable = "{" FieldPath [ "=" Segments ] "}" ;     Verb = ":" LITERAL ;

A literal goes before `*`, and `*` before `**`. As in Envoy, the text after the last colon of a path
is a verb only if some template has that verb; and slashes at the end of a path count for nothing,
but what stands before them is no verb: `/v1/jobs/1:cancel/` is a job whose id is `1:cancel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

T = TypeVar("T")

ONE = "*"
REST = "**"

_VARIABLE = re.compile(r"\{([A-Za-z_][\w.]*)(?:=([^{}]+))?\}", re.ASCII)
_PART = re.compile(r"\{[^{}]*\}|[^/{}]+", re.ASCII)
_LITERAL = re.compile(r"[^/{}*:?#\s]+", re.ASCII)
# RFC 6570's reserved characters: in a value of several segments they stay as they were sent.
_KEPT = re.compile(rb"%(?:2[1346789ABCFabcf]|3[ABDFabdf]|40|5[BDbd])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A part of a path that is bound to a field.

    Attributes:
        path: Names of the fields that lead to it.
        start: Index of its first segment.
        end: Index after its last one; negative: from the end of the path; None: the end.
        several: Whether it may have more than one segment.
    """

    path: tuple[str, ...]
    start: int
    end: int | None
    several: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A parsed path template.

    Attributes:
        text: As written.
        segments: Literals, `*` and `**`.
        verb: What follows the colon at the end; empty if nothing does.
        variables: In the order of the text.
    """

    text: str
    segments: tuple[str, ...]
    verb: str
    variables: tuple[Variable, ...]

    def bind(self, segments: Sequence[str]) -> dict[tuple[str, ...], bytes]:
        """Answer what the variables are in a path that matches, percent-decoded.

        Args:
            segments: Of the path, as sent.
        """
        return {
            variable.path: _decode(segments[variable.start : variable.end], variable.several)
            for variable in self.variables
        }


def parse(text: str) -> Template:
    """Parse a path template.

    Raises:
        ValueError: It is not of the grammar.
    """
    path, verb = text, ""
    colon = text.rfind(":")
    if colon > max(text.rfind("/"), text.rfind("}")):
        path, verb = text[:colon], text[colon + 1 :]
        if _LITERAL.fullmatch(verb) is None:
            raise ValueError(f"path template {text!r}: {verb!r} is not a verb")
    if not path:
        raise ValueError(f"path template {text!r}: a segment is missing or malformed")
    segments: list[str] = []
    spans: list[tuple[tuple[str, ...], int, int]] = []
    for part in _split(path, text):
        variable = _VARIABLE.fullmatch(part)
        if variable is None:
            segments.append(part)
            continue
        start = len(segments)
        segments.extend((variable[2] or ONE).split("/"))
        spans.append((tuple(variable[1].split(".")), start, len(segments)))
    for segment in segments:
        if segment not in (ONE, REST) and _LITERAL.fullmatch(segment) is None:
            raise ValueError(f"path template {text!r}: {segment!r} is not a segment")
    if segments.count(REST) > 1:
        raise ValueError(f"path template {text!r}: ** stands more than once")
    return Template(
        text=text,
        segments=tuple(segments),
        verb=verb,
        variables=tuple(_variable(span, segments) for span in spans),
    )


def _split(path: str, text: str) -> Iterator[str]:
    position = 0
    while position < len(path):
        match = _PART.match(path, position + 1)
        if path[position] != "/" or match is None:
            raise ValueError(f"path template {text!r}: a segment is missing or malformed")
        yield match[0]
        position = match.end()


def _variable(span: tuple[tuple[str, ...], int, int], segments: list[str]) -> Variable:
    path, start, end = span
    rest = segments.index(REST) if REST in segments else len(segments)
    # What comes after ** is counted from the end of the path.
    return Variable(
        path=path,
        start=start if start <= rest else start - len(segments),
        end=end if end <= rest else (end - len(segments) or None),
        several=end - start > 1 or rest in range(start, end),
    )


def _decode(segments: Sequence[str], several: bool) -> bytes:  # noqa: FBT001 - a property of the variable
    if not several:
        return unquote_to_bytes("/".join(segments))
    text = "/".join(segments).encode()
    pieces: list[bytes] = []
    position = 0
    for kept in _KEPT.finditer(text):
        pieces += (unquote_to_bytes(text[position : kept.start()]), kept[0])
        position = kept.end()
    pieces.append(unquote_to_bytes(text[position:]))
    return b"".join(pieces)


@dataclass(slots=True)
class _Node(Generic[T]):
    children: dict[str, _Node[T]] = field(default_factory=dict)
    # By verb, then by HTTP method.
    targets: dict[str, dict[str, T]] = field(default_factory=dict)


class PathTree(Generic[T]):
    """Finds what is registered for a path."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._verbs: set[str] = set()

    def add(self, method: str, template: Template, target: T) -> None:
        """Register a target for an HTTP method and a template.

        Raises:
            ValueError: Another target has them already.
        """
        node = self._root
        for segment in template.segments:
            node = node.children.setdefault(segment, _Node())
        targets = node.targets.setdefault(template.verb, {})
        if method in targets:
            raise ValueError(f"two methods are bound to {method} {template.text}")
        targets[method] = target
        if template.verb:
            self._verbs.add(template.verb)

    def split(self, path: str) -> tuple[list[str], str]:
        """Split a request path, as sent, into segments and verb."""
        verb = ""
        head, colon, tail = path.rpartition(":")
        if colon and tail in self._verbs:
            path, verb = head, tail
        return path.rstrip("/").split("/")[1:], verb

    def find(self, segments: Sequence[str], verb: str) -> Iterator[Mapping[str, T]]:
        """Find the targets by HTTP method of the templates that match, best first."""
        return _walk(self._root, segments, 0, verb)


def _walk(
    node: _Node[T], segments: Sequence[str], index: int, verb: str
) -> Iterator[Mapping[str, T]]:
    if index == len(segments):
        if verb in node.targets:
            yield node.targets[verb]
    else:
        for key in (segments[index], ONE):
            child = node.children.get(key)
            if child is not None and key != REST:
                yield from _walk(child, segments, index + 1, verb)
    rest = node.children.get(REST)
    if rest is not None:
        # ** may stand for no segment at all.
        for after in range(len(segments), index - 1, -1):
            yield from _walk(rest, segments, after, verb)
