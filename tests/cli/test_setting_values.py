"""One reader for each kind of value, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from minion_server.cli import json_arguments
from minion_server.cli.main import build_parser
from minion_server.domain.errors import Invalid
from minion_server.domain.limits import MAX_SPAN
from minion_server.settings import values
from minion_server.settings.options import OPTIONS, Option
from minion_server.settings.sources import load, resolve

DURATIONS = {
    "0": timedelta(),
    "90": timedelta(seconds=90),
    " 1.5 ": timedelta(seconds=1.5),
    ".5": timedelta(seconds=0.5),
    "1e3": timedelta(seconds=1000),
    "1e-05": timedelta(microseconds=10),
    "500ms": timedelta(milliseconds=500),
    "1.5s": timedelta(seconds=1.5),
    "5m": timedelta(minutes=5),
    "1h30m": timedelta(hours=1, minutes=30),
    "2d": timedelta(days=2),
    "1w": timedelta(weeks=1),
    "36525d": MAX_SPAN,
    "3155760000": MAX_SPAN,
}
INVALID_DURATIONS = [
    "",
    "soon",
    "-1",
    "nan",
    "inf",
    "1y",
    "m",
    "1 m",
    "1_0",
    "٣",
    "1e300",
    "1e999",
    "36526d",
    "999999999999w",
    "9" * 400,
]


@pytest.mark.parametrize("text", DURATIONS)
def test_durations_are_read_alike_everywhere(text: str, tmp_path: Path) -> None:
    wanted = DURATIONS[text]
    assert values.parse_duration(text) == wanted
    assert values.parse_seconds(text) == wanted.total_seconds()
    file = tmp_path / "minion.toml"
    file.write_text(f'grace = "{text}"\n')
    for flags, environ in (
        (["--grace", text], {}),
        ([], {"MINION_GRACE": text}),
        (["--config", str(file)], {}),
    ):
        arguments = build_parser().parse_args(["serve", "--data-dir", str(tmp_path), *flags])
        assert load(arguments, environ).grace == wanted.total_seconds()
    enqueue = build_parser().parse_args(["job", "enqueue", "x", f"--delay={text}"])
    assert enqueue.delay == wanted


@pytest.mark.parametrize("text", INVALID_DURATIONS)
def test_invalid_durations_are_refused_and_never_overflow(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        values.parse_duration(text)
    for command in (["job", "wait", "1", f"--for={text}"], ["lock", "run", "x", f"--wait={text}"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args(command)
        shown = capsys.readouterr().err
        assert f"{command[-1].partition('=')[0]}: expected " in shown
        assert len(shown.splitlines()[-1]) < 250


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64KiB", 65_536), ("8 GiB", 8 * 2**30), ("10b", 10), ("1tib", 2**40)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1KB", "9223372036854775808", "9999999TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a number of bytes"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (values.parse_text, ""),
        (values.parse_text, "\udcff"),
        (values.parse_path, "a\0b"),
        (values.parse_path, "~no such user/x"),
        (values.parse_flag, "maybe"),
        (values.parse_count, "1_0"),
        (values.parse_count, "9" * 5_000),
        (values.parse_int32, "2147483648"),
        (values.parse_id, "0"),
        (values.parse_address, "127.0.0.1:65536"),
        (values.parse_address, "127.0.0.1:" + "9" * 5_000),
        (values.parse_address, "é" * 64 + ":1"),
        (values.parse_target, ":1"),
        (values.parse_target, "https://queue.example.org"),
        (values.parse_limit, "a=-1"),
        (values.parse_level, "loud"),
        (json_arguments.parse_array, "{}"),
        (json_arguments.parse_object, "[]"),
    ],
)
def test_readers_name_what_they_expected(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        parse(text)


def test_invalid_json_is_explained_in_one_line() -> None:
    for text in ("[", "[NaN]", "[1]x", "\udcff"):
        with pytest.raises(ValueError, match=r"^not valid JSON: .{5,120}$"):
            json_arguments.parse_array(text)
    for text in (f"[{'9' * 5_000}]", '["\\ud800"]', "[" * 200 + "]" * 200, "[" * 100_000):
        with pytest.raises(ValueError, match=r"^(cannot be sent: )?[^\n]{5,400}$"):
            json_arguments.parse_array(text)


@pytest.mark.parametrize("content", ["[1, 2]", "{a = 1}", "1979-05-27"])
def test_a_file_gives_single_values(tmp_path: Path, content: str) -> None:
    (tmp_path / "minion.toml").write_text(f"grace = {content}\n")
    arguments = build_parser().parse_args(["serve", "--data-dir", str(tmp_path)])
    with pytest.raises(Invalid, match=r"^grace: expected a text or a number, got "):
        load(arguments, {})


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = 1\na = 2", "\0"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "minion.toml").write_text(content)
    arguments = build_parser().parse_args(["serve", "--data-dir", str(tmp_path)])
    with pytest.raises(Invalid, match=r"^--config: cannot read "):
        load(arguments, {})


@pytest.mark.parametrize("name", ["api_key", "database"])
def test_secrets_are_not_shown(tmp_path: Path, name: str) -> None:
    option: Option = OPTIONS[name]
    arguments = build_parser().parse_args(["serve", "--data-dir", str(tmp_path)])
    with pytest.raises(Invalid) as caught:
        resolve([option], arguments, {option.variable: "hush\udcff"})
    assert str(caught.value) == f"{option.variable}: expected UTF-8"
