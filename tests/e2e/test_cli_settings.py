"""Settings: their sources, their errors, and the help."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from minion_server.cli.main import build_parser
from minion_server.settings.options import SERVE_OPTIONS
from minion_server.settings.sources import load
from support.cli import told
from support.processes import KEY, MinionProcess, minion

FLAGS = ("--data-dir", "data", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
Refused = Callable[..., str]
BAD = [
    ("jobs", "x"),
    ("jobs", "-1"),
    ("jobs", "10001"),
    ("spare", "1.5"),
    ("spare_min_priority", "2147483648"),
    ("grpc_listen", "nonsense"),
    ("http_listen", "127.0.0.1:65536"),
    ("grace", "soon"),
    ("grace", "nan"),
    ("grace", "-1"),
    ("repair_interval", "0"),
    ("limit", "foo"),
    ("limit", "foo=x"),
    ("log_level", "loud"),
    ("database", "mysql://x"),
    ("tasks", "no_such_module"),
]


@pytest.fixture
def refused(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Refused:
    """Start a server with invalid settings, and return its error, which must be one line."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))

    def run(*arguments: str, **env: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            text = told(capsys, "serve", "--data-dir", str(home / "data"), *arguments)
        assert text.startswith("2: minion: ")
        assert text.count("\n") == 1
        return text.removeprefix("2: minion: ").rstrip()

    return run


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_setting_is_named_wherever_it_comes_from(
    refused: Refused, home: Path, name: str, value: str
) -> None:
    flag, variable = f"--{name.replace('_', '-')}", f"MINION_{name.upper()}"
    file = home / "minion.toml"
    assert refused(flag, value).startswith(f"{flag}: ")
    named = refused(**{variable: value})
    file.write_text(f'{name} = "{value}"\n')
    in_file = refused("--config", str(file))
    # Errors that occur when a setting is used name its flag, too.
    if name not in {"database", "tasks"}:
        assert named.startswith(f"{variable}: ")
        assert in_file.startswith(f"{name}: ")
    # The URL of a database can contain a password.
    shown = "mysql" if name == "database" else value
    assert shown in named
    assert shown in in_file


def test_no_slot_at_all_is_refused(refused: Refused) -> None:
    text = refused("--jobs", "0", "--spare", "0")
    assert text == "--jobs: expected at least 1 without --no-scheduler, got 0"


def test_a_file_with_a_setting_that_does_not_exist_is_refused(refused: Refused, home: Path) -> None:
    file = home / "minion.toml"
    file.write_text("job = 4\n")
    assert refused("--config", str(file)) == f"{file}: job: unknown setting"
    file.write_text("jobs = \n")
    assert refused(MINION_CONFIG=str(file)).startswith("--config: cannot read")
    assert refused("--config", "nope.toml") == "--config: cannot read nope.toml: no such file"


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("raise SystemExit", "SystemExit:"),
        ("raise GeneratorExit('two\\nlines')", "GeneratorExit: two lines"),
        ("__import__('asyncio').run(1)", "ValueError: a coroutine was expected, got 1"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    home: Path, command: str, statement: str, error: str
) -> None:
    (home / "broken.py").write_text(f"import sys\n\n{statement}\n")
    arguments = {
        "serve": ("--data-dir", "data"),
        "worker": ("--target", "127.0.0.1:1", "--api-key", "key"),
    }
    result = minion(command, *arguments[command], "--tasks", "broken", home=home)
    assert (result.returncode, result.stdout) == (2, "")
    place = f"({home / 'broken.py'}, line 3)"
    assert result.stderr == f"minion: --tasks: cannot import broken: {error} {place}\n"


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_module_can_run_its_own_loop_during_its_import(
    home: Path,
    start: Callable[..., MinionProcess],
    serve: Callable[..., MinionProcess],
    command: str,
) -> None:
    (home / "looping.py").write_text(
        "import asyncio\n\nfrom minion_client import Job, task\n\n"
        "ANSWER = asyncio.run(asyncio.sleep(0, 42))\n\n\n"
        "@task\nasync def answer(job: Job) -> int:\n    return ANSWER\n"
    )
    if command == "serve":
        server = serve("--tasks", "looping")
    else:
        server = serve("--no-scheduler")
        target = ("--target", server.grpc, "--api-key", KEY)
        start("worker", *target, "--tasks", "looping", ready="worker")
    assert server.wait(server.enqueue("answer"))["result"] == 42


def test_a_module_that_processes_cannot_import_is_named(home: Path) -> None:
    (home / "mytasks.py").write_text(
        "import sys\nfrom minion_client import task\n\n\n"
        "@task\ndef crunch(job):\n    pass\n\n\n"
        "if 'minion_client._run.child' in sys.orig_argv:\n    1 / 0\n"
    )
    result = minion("serve", *FLAGS, "--tasks", "mytasks", home=home)
    assert (result.returncode, result.stdout) == (2, "")
    assert "minion: --tasks: cannot import tasks from 'mytasks'" in result.stderr
    assert result.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "the worker failed" not in result.stderr


def test_flags_come_before_variables_before_the_file(home: Path) -> None:
    (home / "minion.toml").write_text(
        'jobs = 1\nspare = 2\ngrace = 3.5\nqueues = ["a", "b"]\nno_library = true\n'
        'limit = ["x=1", "y=2"]\ngrpc_listen = "[::1]:0"\n'
    )
    arguments = build_parser().parse_args(["serve", "--data-dir", str(home), "--jobs", "7"])
    settings = load(arguments, {"MINION_JOBS": "5", "MINION_SPARE": "6", "MINION_TASKS": "m,n"})
    assert (settings.jobs, settings.spare, settings.grace) == (7, 6, 3.5)
    assert (settings.queues, settings.tasks) == (("a", "b"), ("m", "n"))
    assert (settings.no_library, settings.limit) == (True, (("x", 1), ("y", 2)))
    assert settings.grpc_listen == ("::1", 0)
    assert (settings.http_listen, settings.log_level) == (("127.0.0.1", 8080), "INFO")


def test_tasks_are_found_in_the_working_directory(
    home: Path, start: Callable[..., MinionProcess]
) -> None:
    # The module beside it has the name of one of the standard library, and must not hide that.
    (home / "random.py").write_text("raise ImportError('the wrong one')\n")
    (home / "mytasks.py").write_text(
        "import random\n"
        "from minion_client import Job, task\n\n\n"
        "@task\n"
        "def crunch(job: Job, n: int) -> int:\n"
        "    return n + random.randrange(1, 2)\n"
    )
    server = start("serve", *FLAGS, "--tasks", "mytasks", "--api-key", "the-key", PYTHONPATH="")
    assert server.wait(server.enqueue("crunch", 41))["result"] == 42


def test_the_help_names_flag_variable_and_setting(home: Path) -> None:
    text = " ".join(minion("serve", "--help", home=home, COLUMNS="200").stdout.split())
    for option in SERVE_OPTIONS:
        assert f"({option.variable}, {option.name}" in text
        assert option.flag in text


@pytest.mark.parametrize(
    "command", [(), ("serve",), ("bridge",), ("job",), ("job", "list"), ("job", "retry"), ("demo",)]
)
def test_every_command_has_help(home: Path, command: tuple[str, ...]) -> None:
    result = minion(*command, "--help", home=home)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: minion")


def test_the_version_is_printed(home: Path) -> None:
    assert minion("--version", home=home).stdout.startswith("minion 0.")
    assert minion(home=home).returncode == 2


def test_a_start_that_fails_leaves_the_address_of_another_server(home: Path) -> None:
    data = home / "data"
    data.mkdir()
    (data / "server.json").write_text('{"grpc": "127.0.0.1:5", "http": null}')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = minion("serve", *FLAGS, "--http-listen", f"127.0.0.1:{port}", home=home)
    assert (result.returncode, result.stdout) == (1, "")
    assert (data / "server.json").exists()
