from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_client._run.frames import HEADER, FrameDecoder, FrameError, encode_frame

messages = st.lists(st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=9)))


@given(messages, st.lists(st.integers(1, 40), min_size=1))
def test_messages_arrive_however_they_are_cut(sent: list[dict[str, Any]], cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, sent))
    decoder = FrameDecoder(1_000_000)
    received: list[dict[str, Any]] = []
    number = 0
    while stream:
        cut = cuts[number % len(cuts)]
        received += decoder.feed(stream[:cut])
        stream = stream[cut:]
        number += 1
    assert received == sent


def test_a_message_that_is_too_long_is_refused_before_it_arrives() -> None:
    with pytest.raises(FrameError, match="expected at most 10 bytes, got 11"):
        list(FrameDecoder(10).feed(HEADER.pack(11)))


@pytest.mark.parametrize(
    ("body", "text"), [(b"{", "expected JSON"), (b"[]", "expected a JSON object, got list")]
)
def test_what_is_no_message_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(FrameError, match=text):
        list(FrameDecoder(10).feed(HEADER.pack(len(body)) + body))
