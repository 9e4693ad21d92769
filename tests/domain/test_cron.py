from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_server.domain.cron import parse_cron
from minion_server.domain.errors import Invalid


def _at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("rule", "after", "expected"),
    [
        ("* * * * *", "2026-01-01 00:00:00", "2026-01-01 00:01:00"),
        ("* * * * *", "2026-01-01 00:00:59.9", "2026-01-01 00:01:00"),
        ("30 4 * * *", "2026-01-01 04:30:00", "2026-01-02 04:30:00"),
        ("30 4 * * *", "2026-01-01 04:29:59", "2026-01-01 04:30:00"),
        ("*/15 9-17 * * mon-fri", "2026-01-02 17:45:00", "2026-01-05 09:00:00"),
        ("0 0 1 1 *", "2026-01-01 00:00:00", "2027-01-01 00:00:00"),
        ("0 0 29 2 *", "2026-03-01 00:00:00", "2028-02-29 00:00:00"),
        ("0 0 29 2 *", "2097-01-01 00:00:00", "2104-02-29 00:00:00"),
        ("59 23 31 12 *", "2026-12-31 23:59:00", "2027-12-31 23:59:00"),
        ("0 12 * JAN,jul SUN", "2026-02-01 00:00:00", "2026-07-05 12:00:00"),
        ("0 0 * * 7", "2026-01-01 00:00:00", "2026-01-04 00:00:00"),
        ("0 0 * * 5-7", "2026-01-03 00:00:00", "2026-01-04 00:00:00"),
        ("10-20/5 * * * *", "2026-01-01 00:15:00", "2026-01-01 00:20:00"),
        # Both days restricted: either matches.
        ("0 0 13 * fri", "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        ("0 0 13 * fri", "2026-01-09 00:00:00", "2026-01-13 00:00:00"),
        # One of them restricted: that one matches.
        ("0 0 13 * *", "2026-01-01 00:00:00", "2026-01-13 00:00:00"),
        ("0 0 * * fri", "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        ("@hourly", "2026-01-01 00:00:00", "2026-01-01 01:00:00"),
        ("@daily", "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        ("@midnight", "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        ("@weekly", "2026-01-01 00:00:00", "2026-01-04 00:00:00"),
        ("@monthly", "2026-01-01 00:00:00", "2026-02-01 00:00:00"),
        ("@yearly", "2026-01-01 00:00:00", "2027-01-01 00:00:00"),
        ("@annually", "2026-01-01 00:00:00", "2027-01-01 00:00:00"),
    ],
)
def test_the_next_match(rule: str, after: str, expected: str) -> None:
    assert parse_cron(rule).next_time(_at(after)) == _at(expected)


@pytest.mark.parametrize(
    "rule",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *",
        "* * * 0 *", "* * * 13 *", "* * * * 8", "5-2 * * * *", "*/0 * * * *", "*/x * * * *",
        "1, * * * *", ",1 * * * *", "-1 * * * *", "1- * * * *", "1/ * * * *", "a * * * *",
        "mon * * * *", "* * * mon *", "@reboot", "@Daily", "@", "1.5 * * * *", "\u0661 * * * *",
        "0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "* * * * *\0", "0 " * 200,
    ],
)  # fmt: skip
def test_what_is_no_rule_or_never_matches_is_refused(rule: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_cron(rule)
    assert caught.value.field == "cron"


_FIELDS = [
    st.one_of(
        st.just("*"),
        st.integers(low, high).map(str),
        st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda pair: f"{min(pair)}-{max(pair)}"
        ),
        st.integers(1, 30).map("*/{}".format),
        st.lists(st.integers(low, high), min_size=1, max_size=3).map(
            lambda values: ",".join(map(str, values))
        ),
    )
    for low, high in ((0, 59), (0, 23), (1, 28), (1, 12), (0, 7))
]


def _values(field: str, low: int, high: int) -> set[int]:
    """Parse a field in the simplest way."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = low if span == "*" else int(first)
        stop = high if span == "*" else int(last or first)
        found.update(range(start, stop + 1, int(step or 1)))
    return found


def _matches(fields: list[str], moment: datetime) -> bool:
    minute, hour, day, month, weekday = fields
    in_day = moment.day in _values(day, 1, 31)
    in_week = moment.isoweekday() % 7 in {value % 7 for value in _values(weekday, 0, 7)}
    days = in_day or in_week
    if day == "*":
        days = in_week
    elif weekday == "*":
        days = in_day
    return (
        moment.minute in _values(minute, 0, 59)
        and moment.hour in _values(hour, 0, 23)
        and moment.month in _values(month, 1, 12)
        and days
    )


@given(st.tuples(*_FIELDS), st.integers(0, 4_000_000_000))
def test_the_next_match_is_one_and_the_first(fields: tuple[str, ...], after: int) -> None:
    found = parse_cron(" ".join(fields)).next_time(after)
    assert found is not None
    assert found > after
    assert _matches(list(fields), datetime.fromtimestamp(found, UTC))
    # None in the hours before it.
    moment = datetime.fromtimestamp(found, UTC)
    for _ in range(90):
        moment -= timedelta(minutes=1)
        if moment.timestamp() <= after:
            break
        assert not _matches(list(fields), moment)
