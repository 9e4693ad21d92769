from __future__ import annotations

import json
import math
from collections import OrderedDict
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_client.json_value import MAX_DEPTH, NotJsonError, plain_json, storable_text

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15, allow_nan=False)
    | texts
)
values = st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(texts, v), max_leaves=20)


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Plain(Enum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


@given(values)
def test_json_is_copied_as_it_is(value: Any) -> None:
    copy = plain_json(value)
    assert copy == value
    assert json.loads(json.dumps(copy)) == value


@given(values, st.integers(1, 200))
def test_the_limit_is_that_of_the_text(value: Any, limit: int) -> None:
    size = len(orjson.dumps(value))
    if size <= limit or isinstance(value, bool | None):
        assert plain_json(value, limit=limit) == value
    else:
        with pytest.raises(NotJsonError, match=rf"^\$: more than {limit} bytes$"):
            plain_json(value, limit=limit)


def test_a_copy_is_a_copy() -> None:
    value = {"a": [1]}
    copy = plain_json(value)
    value["a"].append(2)
    assert copy == {"a": [1]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (Colour.RED, "red"),
        (Size.LARGE, 3),
        ({Colour.RED: Size.LARGE}, {"red": 3}),
        (2**53 - 1, 2**53 - 1),
        (1e300, 1e300),
    ],
)
def test_subclasses_count_as_what_they_extend(value: Any, expected: Any) -> None:
    copy = plain_json(value)
    assert copy == expected
    assert orjson.dumps(copy, option=orjson.OPT_PASSTHROUGH_SUBCLASS) == orjson.dumps(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [{1}]}, "$.a[0]: set"),
        ([1, [2, b"x"]], "$[1][1]: bytes"),
        ({"a": {1: 2}}, "$.a: key of type int"),
        ({None: 2}, "$: key of type NoneType"),
        (math.nan, "$: nan"),
        ([math.inf], "$[0]: inf"),
        (2**53, "$: integer beyond 2^53 (send it as a string)"),
        (-(10**400), "$: integer beyond 2^53 (send it as a string)"),
        (float(2**60), "$: whole number beyond 2^53 (send it as a string)"),
        ({"a": "x\0"}, "$.a: NUL character in a string"),
        (["\ud800"], "$[0]: lone surrogate in a string"),
        ({"\udfff": 1}, "$.\N{REPLACEMENT CHARACTER}: lone surrogate in a string"),
        (Plain.ONE, "$: Plain"),
        (object(), "$: object"),
    ],
)
def test_what_is_not_json_is_refused_by_its_path(value: Any, text: str) -> None:
    with pytest.raises(NotJsonError) as caught:
        plain_json(value)
    assert str(caught.value) == text


def test_nesting_is_limited_and_circles_are_found() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert plain_json(deep) == deep
    with pytest.raises(NotJsonError, match=f"nested more than {MAX_DEPTH} deep"):
        plain_json([deep])
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(NotJsonError, match="nested more than"):
        plain_json(circle)


def test_a_value_that_holds_itself_many_times_over_is_refused_early() -> None:
    value: list[Any] = [0] * 10
    for _ in range(20):
        value = [value] * 10
    with pytest.raises(NotJsonError, match="more than 100000 bytes"):
        plain_json(value, limit=100_000)


@given(st.text(), st.integers(1, 20))
def test_any_text_can_be_made_storable(text: str, limit: int) -> None:
    made = storable_text(text, limit=limit)
    assert len(made) == min(len(text), limit)
    assert plain_json(made) == made
