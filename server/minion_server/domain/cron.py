"""Cron rules in Perl Minion's syntax (Minion::Util): five fields or a nickname, in UTC.

If both the day of the month and the day of the week are restricted, a day has to match only one of
them (Vixie cron, crontab(5)).
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from minion_server.domain import limits
from minion_server.domain.errors import Invalid

FIELD = "cron"
"""The field named in errors."""

NICKNAMES: Mapping[str, str] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_SUNDAY_TOO = 7

# The longest time between two 29ths of February is eight years, as around 2100.
_HORIZON_YEARS = 9
_PARTS = 5

_NUMBER = re.compile(r"[0-9]{1,4}", re.ASCII)
_STEP = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FieldRule:
    name: str
    low: int
    high: int
    names: Mapping[str, int]


_RULES = (
    _FieldRule(name="minute", low=0, high=59, names={}),
    _FieldRule(name="hour", low=0, high=23, names={}),
    _FieldRule(name="day-of-month", low=1, high=31, names={}),
    _FieldRule(name="month", low=1, high=12, names=_MONTHS),
    _FieldRule(name="day-of-week", low=0, high=_SUNDAY_TOO, names=_DAYS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A parsed cron rule. Minutes and hours are sorted, Sunday is 0, None means every day."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None

    def next_time(self, after: float) -> float | None:
        """Return the first matching time after `after`, both in seconds since the epoch.

        Return None if there is no match within nine years, hence never, or before the year 10000.
        """
        try:
            return self._search(limits.clamp_time(after))
        except OverflowError:
            return None

    def _search(self, after: float) -> float | None:
        start = datetime.fromtimestamp(after // 60 * 60, UTC) + timedelta(minutes=1)
        last_year = start.year + _HORIZON_YEARS
        day = start.replace(hour=0, minute=0)
        while day.year <= last_year:
            if day.month not in self.months:
                day = _next_month(day)
                continue
            if self._matches_day(day):
                moment = self._first_time(day, max(start, day))
                if moment is not None:
                    return moment.timestamp()
            day += timedelta(days=1)
        return None

    def _matches_day(self, day: datetime) -> bool:
        weekday = day.isoweekday() % 7
        if self.days is None:
            return self.weekdays is None or weekday in self.weekdays
        if self.weekdays is None:
            return day.day in self.days
        return day.day in self.days or weekday in self.weekdays

    def _first_time(self, day: datetime, start: datetime) -> datetime | None:
        for hour in self.hours:
            for minute in self.minutes:
                moment = day.replace(hour=hour, minute=minute)
                if moment >= start:
                    return moment
        return None


@lru_cache(maxsize=1_024)
def parse_cron(text: str) -> Cron:
    """Parse a cron rule.

    Raises:
        Invalid: The rule is not valid, or never matches.
    """
    limits.check_text(FIELD, text, limits.MAX_NAME_LENGTH)
    if text.startswith("@"):
        if text not in NICKNAMES:
            raise Invalid(FIELD, f"has the unknown nickname {text!r}")
        parts = NICKNAMES[text].split()
    else:
        parts = text.split()
    if len(parts) != _PARTS:
        raise Invalid(FIELD, f"must have 5 fields or be a nickname, not {text!r}")
    minutes, hours, days, months, weekdays = (
        _parse_field(part, rule) for part, rule in zip(parts, _RULES, strict=True)
    )
    cron = Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=None if parts[2] == "*" else days,
        months=months,
        weekdays=None if parts[4] == "*" else frozenset(day % _SUNDAY_TOO for day in weekdays),
    )
    if cron.next_time(0) is None:
        raise Invalid(FIELD, f"never matches: {text!r}")
    return cron


def _parse_field(text: str, rule: _FieldRule) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and not _STEP.fullmatch(step):
            raise Invalid(FIELD, f"has an invalid step {step!r} in its {rule.name} field")
        if span == "*":
            first, last = rule.low, rule.high
        else:
            begin, dash, end = span.partition("-")
            first = _resolve(begin, rule)
            last = _resolve(end, rule) if dash else first
        if not rule.low <= first <= last <= rule.high:
            raise Invalid(
                FIELD, f"is out of range {rule.low}..{rule.high} in its {rule.name} field: {part!r}"
            )
        values.update(range(first, last + 1, int(step) if slash else 1))
    return frozenset(values)


def _resolve(text: str, rule: _FieldRule) -> int:
    if _NUMBER.fullmatch(text):
        return int(text)
    try:
        return rule.names[text.lower()]
    except KeyError:
        raise Invalid(FIELD, f"has no value {text!r} in its {rule.name} field") from None


def _next_month(day: datetime) -> datetime:
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
