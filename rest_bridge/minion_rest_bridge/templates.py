"""Path templates of google.api.http, and a table to find those that match a request path.

The grammar and the order of precedence are those of google/api/http.proto:

    Template = "/" Segments [ Verb ] ;        Segments = Segment { "/" Segment } ;
    Segment  = "*" | "**" | LITERAL | Variable ;
    Variable = "{" FieldPath [ "=" Segments ] "}" ;     Verb = ":" LITERAL ;

Literals are preferred to `*`, and `*` to `**`. As in Envoy, the text after the last colon of a path
is a verb only if a template has that verb. Slashes at the end of a path are ignored, but the text
before them is not a verb: `/v1/jobs/1:cancel/` is a job whose id is `1:cancel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from minion_rest_bridge.fields import Path

T = TypeVar("T")

ONE: Final = "*"
REST: Final = "**"

_SEGMENT: Final = r"(?:\*\*?|[^/{}*:?#\s]+)"
_VARIABLE: Final = rf"\{{([A-Za-z_][\w.]*)(?:=({_SEGMENT}(?:/{_SEGMENT})*))?\}}"
_PART: Final = re.compile(rf"/(?:{_VARIABLE}|({_SEGMENT})(?=/|$))", re.ASCII)
_VERB: Final = re.compile(r":([^/{}*:?#\s]+)$", re.ASCII)
# RFC 6570's reserved characters: not decoded in a value of several segments.
_KEPT: Final = re.compile(r"(%(?:2[1346789ABCFabcf]|3[ABDFabdf]|40|5[BDbd]))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A parsed path template."""

    text: str
    segments: tuple[str, ...]  # literals, `*` and `**`
    verb: str  # empty if there is none
    variables: dict[Path, bool]  # in the order of the text; whether they can have several segments
    pattern: re.Pattern[str]  # matches paths without their verb, with a group for each variable

    @property
    def plain_text(self) -> str:
        """The text without the patterns of its variables."""
        return re.sub(_VARIABLE, r"{\1}", self.text)

    def bind(self, match: re.Match[str]) -> dict[Path, bytes]:
        """Return the values of the variables in a path that matches, percent-decoded."""
        # `**` can match no segment at all.
        return {
            path: _decode(text or "", several=several)
            for (path, several), text in zip(self.variables.items(), match.groups(), strict=True)
        }


def parse(text: str) -> Template:
    """Parse a path template.

    Raises:
        ValueError: The template does not follow the grammar, or has a variable twice.
    """
    verb = _VERB.search(text)
    path = text if verb is None else text[: verb.start()]
    segments: list[str] = []
    variables: dict[Path, bool] = {}
    pattern = parsed = ""
    for part in _PART.finditer(path):
        name, inner, segment = part.groups()
        parts = (segment or inner or ONE).split("/")
        field = tuple(name.split(".")) if name else None
        if field in variables:
            raise ValueError(f"path template {text!r}: {name} is bound twice")
        if field is not None:
            variables[field] = parts != [ONE]
        pattern += _pattern(parts, captures=field is not None)
        segments += parts
        parsed += part[0]
    if not path or parsed != path:
        raise ValueError(f"path template {text!r}: expected segments and variables after slashes")
    if segments.count(REST) > 1:
        raise ValueError(f"path template {text!r}: expected ** at most once")
    return Template(
        text=text,
        segments=tuple(segments),
        verb="" if verb is None else verb[1],
        variables=variables,
        pattern=re.compile(pattern, re.DOTALL),
    )


def _pattern(segments: list[str], *, captures: bool) -> str:
    """Return the regular expression of adjacent segments, including the slash before them."""
    if segments == [REST]:
        return "(?:/(.*))?" if captures else "(?:/.*)?"
    # A line break, which literals cannot contain, represents `**`, which includes one slash.
    body = "/".join({ONE: "[^/]*", REST: "\n"}.get(each, re.escape(each)) for each in segments)
    body = re.sub(r"^\n/", "(?:.*/)?", body).replace("/\n", "(?:/.*)?")
    return f"/({body})" if captures else f"/{body}"


def _decode(text: str, *, several: bool) -> bytes:
    if not several:
        return unquote_to_bytes(text)
    # Every second piece is not decoded.
    pieces = _KEPT.split(text)
    return b"".join(
        piece.encode() if index % 2 else unquote_to_bytes(piece)
        for index, piece in enumerate(pieces)
    )


class PathTable(Generic[T]):
    """Finds the targets that are registered for a path."""

    def __init__(self) -> None:
        # By verb, the most specific first.
        self._templates: dict[str, list[tuple[Template, dict[str, T]]]] = {}

    def add(self, method: str, template: Template, target: T) -> None:
        """Register a target for an HTTP method and a template.

        Raises:
            ValueError: Another target is registered for them.
        """
        known = self._templates.setdefault(template.verb, [])
        for other, targets in known:
            if other.segments == template.segments:
                if method in targets:
                    raise ValueError(f"two methods are bound to {method} {template.text}")
                targets[method] = target
                return
        known.append((template, {method: target}))
        known.sort(key=lambda each: [_RANKS.get(segment, 0) for segment in each[0].segments])

    def find(self, path: str) -> Iterator[tuple[Mapping[str, T], re.Match[str]]]:
        """Find the targets, by HTTP method, of the templates that match a path, the best first."""
        head, _, verb = path.rpartition(":")
        if verb in self._templates and verb:
            path = head
        else:
            verb = ""
        path = path.rstrip("/")
        for template, targets in self._templates.get(verb, ()):
            match = template.pattern.fullmatch(path)
            if match is not None:
                yield targets, match


_RANKS: Final = {ONE: 1, REST: 2}
