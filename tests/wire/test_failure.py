"""Why a job failed, as one text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st
from minion_wire.failure import MAX_JSON_TEXT_BYTES, error_text
from minion_wire.values import from_value, to_value

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e300, 1e300) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("oh no", "oh no"),
        ("", ""),
        ({"error": "gone", "code": 5}, "gone"),
        ({"error": {"a": 1}}, '{"error":{"a":1}}'),
        ({"n": 1, "a": "\u00e4"}, '{"a":"\u00e4","n":1}'),
        ([1.0, -0.0, 1.5], "[1,0,1.5]"),
        (None, "null"),
        (False, "false"),
    ],
)
def test_the_text_is_that_of_the_contract(result: Any, text: str) -> None:
    assert error_text(result) == text


@given(values)
def test_the_text_is_the_same_on_both_sides_of_the_wire(result: Any) -> None:
    message = Value()
    to_value(result, message)
    assert error_text(from_value(Value.FromString(message.SerializeToString()))) == error_text(
        result
    )


def test_the_text_of_json_is_cut_where_it_is_much_longer_than_the_value() -> None:
    text = error_text(["\x01\u00e4" * 200_000])
    assert text.startswith('["\\u0001\u00e4\\u0001')
    assert text.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert len(text.encode()) <= MAX_JSON_TEXT_BYTES
    long = "x" * (MAX_JSON_TEXT_BYTES * 2)
    assert error_text(long) == error_text({"error": long}) == long
    assert json.loads(error_text([long[:1_000]])) == [long[:1_000]]
