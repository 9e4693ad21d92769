"""JSON values that every door accepts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from minion_wire.json_value import MAX_EXACT

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NUMBERS = (
    st.integers(-MAX_EXACT, MAX_EXACT)
    | st.floats(-1e15, 1e15)
    | st.sampled_from([0, -0.0, 1.0, MAX_EXACT, -MAX_EXACT, 0.1, 5e-324, 2.0**64 * 3, 1e300])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


def wrapped(form: str, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if form == "list" else {"a": value}
    return value
