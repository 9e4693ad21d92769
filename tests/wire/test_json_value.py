from __future__ import annotations

import json
import math
from collections import OrderedDict
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple

import orjson
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given
from hypothesis import strategies as st
from minion_wire import sizes
from minion_wire.json_value import (
    NotJsonError,
    TooLargeError,
    nests_too_deep,
    plain_json,
    storable_text,
)
from minion_wire.values import from_value, to_list, to_struct, to_value

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
def test_the_limit_is_that_of_the_message(value: Any, limit: int) -> None:
    message = Value()
    to_value(value, message)
    if message.ByteSize() <= limit or isinstance(value, bool | None):
        assert plain_json(value, limit=limit) == value
    else:
        with pytest.raises(TooLargeError, match=f"more than {limit} bytes as encoded, not"):
            plain_json(value, limit=limit)


@given(st.lists(values), st.dictionaries(texts, values))
def test_sizes_are_those_of_the_messages(items: list[Any], entries: dict[str, Any]) -> None:
    array, object_, both = ListValue(), Struct(), Value()
    to_list(items, array)
    to_struct(entries, object_)
    to_value([*items, entries], both)
    assert sizes.list_size(items) == array.ByteSize()
    assert sizes.struct_size(entries) == object_.ByteSize()
    assert sizes.value_size([*items, entries]) == both.ByteSize()
    assert from_value(both) == [*items, entries]


@pytest.mark.parametrize("length", [2**7 - 1, 2**7, 2**14 - 1, 2**14, 2**21 - 1, 2**21, 2**22])
def test_long_strings_have_the_size_of_their_message(length: int) -> None:
    value = [["\u00e4" * (length // 2)], {"x" * (length - 7): None}]
    message = Value()
    to_value(value, message)
    assert sizes.value_size(value) == message.ByteSize()


@given(values | st.lists(st.sampled_from([0, None, "", [], {}, "\1", {"": 1}]), max_size=300))
def test_the_length_of_the_text_bounds_the_size_and_the_other_way_round(value: Any) -> None:
    size, text = sizes.value_size(value), len(orjson.dumps(value))
    assert size <= sizes.upper_bound(text)
    assert text <= size * sizes.MAX_TEXT_FACTOR
    assert sizes.upper_bound(sizes.longest_text(size)) <= size or size < 16


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
        ({"a": [{1}]}, "$.a[0]: expected a JSON value, got set"),
        ([1, [2, b"x"]], "$[1][1]: expected a JSON value, got bytes"),
        ({"a": {1: 2}}, "$.a: expected string keys, got one of type int"),
        ({None: 2}, "$: expected string keys, got one of type NoneType"),
        (math.nan, "$: must be a finite number, not nan"),
        ([math.inf], "$[0]: must be a finite number, not inf"),
        (
            2**53,
            "$: whole number beyond 2^53 - 1, too large to be kept exactly: send it as a string",
        ),
        (
            -(10**400),
            "$: whole number beyond 2^53 - 1, too large to be kept exactly: send it as a string",
        ),
        (
            float(2**60),
            "$: whole number beyond 2^53 - 1, too large to be kept exactly: send it as a string",
        ),
        ({"a": "x\0"}, "$.a: must not contain a NUL character"),
        (["\ud800"], "$[0]: must not contain a lone surrogate"),
        ({"\udfff": 1}, "$: key must not contain a lone surrogate"),
        (Plain.ONE, "$: expected a JSON value, got Plain"),
        (object(), "$: expected a JSON value, got object"),
    ],
)
def test_what_is_not_json_is_refused_by_its_path(value: Any, text: str) -> None:
    with pytest.raises(NotJsonError) as caught:
        plain_json(value)
    assert str(caught.value) == text


def test_nesting_is_limited_and_circles_are_found() -> None:
    for deepest, wrap in ((47, lambda value: [value]), (31, lambda value: {"a": value})):
        deep: Any = 1
        for _ in range(deepest):
            deep = wrap(deep)
        assert plain_json(deep) == deep
        assert not nests_too_deep(deep)
        assert nests_too_deep(wrap(deep))
        with pytest.raises(NotJsonError, match="nested too deeply"):
            plain_json(wrap(deep))
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(NotJsonError, match="nested too deeply"):
        plain_json(circle)


def test_a_value_that_holds_itself_many_times_over_is_refused_early() -> None:
    value: list[Any] = [0] * 10
    for _ in range(20):
        value = [value] * 10
    with pytest.raises(NotJsonError, match="more than 100000 bytes as encoded"):
        plain_json(value, limit=100_000)


@given(st.text(), st.integers(1, 20))
def test_any_text_can_be_made_storable(text: str, limit: int) -> None:
    made = storable_text(text, limit=limit)
    assert len(made) == min(len(text), limit)
    assert plain_json(made) == made
