"""The table of settings, which defines flags, environment variables, TOML keys and help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import platformdirs
from minion_client.endpoint import DEFAULT_TARGET

from minion_server.domain.errors import Invalid
from minion_server.settings.keys import KEY_FILE
from minion_server.settings.values import (
    parse_address,
    parse_count,
    parse_flag,
    parse_int32,
    parse_interval,
    parse_level,
    parse_limit,
    parse_path,
    parse_seconds,
    parse_target,
    parse_text,
    refusal,
)

VARIABLE_PREFIX: Final = "MINION_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting.

    Attributes:
        name: Key in the TOML file; the flag has dashes for underscores, the variable capitals.
        parse: Parses its text; raises ValueError with the expected format.
        help: Its description.
        default: Its value when nothing is given.
        many: Whether it may be given several times; in the variable, separated by commas.
        metavar: Placeholder of its value in the help.
        secret: Whether errors must not show its value.
    """

    name: str
    parse: Callable[[str], Any]
    help: str
    default: Any = None
    many: bool = False
    metavar: str = "TEXT"
    secret: bool = False

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def is_flag(self) -> bool:
        """True if it is a boolean, whose flag has no value."""
        return self.parse is parse_flag

    def read(self, text: str, origin: str) -> Any:
        """Parse one value.

        Raises:
            Invalid: The value is not valid; the error names its origin.
        """
        try:
            return self.parse(text)
        except ValueError as error:
            raise Invalid(origin, str(error) if self.secret else refusal(error, text)) from None


def _option(
    parse: Callable[[str], Any], default: Any, metavar: str, text: str, **others: bool
) -> Any:
    entry = {"parse": parse, "default": default, "metavar": metavar, "help": text}
    return field(default=default, metadata=entry | others)


def _switch(text: str) -> Any:
    return _option(parse_flag, False, "", text)  # noqa: FBT003 - its default


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of `minion serve`; other commands share those that they need."""

    data_dir: Path = _option(
        parse_path,
        Path(platformdirs.user_data_dir("minion", appauthor=False)),
        "DIR",
        "directory of the database and the key",
    )
    database: str | None = _option(
        parse_text,
        None,
        "URL",
        "the database, if not the embedded one: sqlite:///PATH or postgresql://...",
        secret=True,
    )
    grpc_listen: tuple[str, int] = _option(
        parse_address,
        ("127.0.0.1", 50051),
        "HOST:PORT",
        "address of the gRPC API; port 0 picks a free one",
    )
    http_listen: tuple[str, int] = _option(
        parse_address,
        ("127.0.0.1", 8080),
        "HOST:PORT",
        "address of the REST API; port 0 picks a free one",
    )
    no_http: bool = _switch("do not serve the REST API")
    api_key: str | None = _option(
        parse_text,
        None,
        "KEY",
        "API key (prefer the variable or a file: other users can see flags)",
        secret=True,
    )
    key_file: Path | None = _option(
        parse_path,
        None,
        "FILE",
        f"file with the API key (default: {KEY_FILE} in the data directory, created if missing)",
    )
    tasks: tuple[str, ...] = _option(
        parse_text, (), "MODULE", "module that defines tasks; may be given several times", many=True
    )
    no_library: bool = _switch("do not load the bundled tasks")
    library_dir: Path | None = _option(
        parse_path,
        None,
        "DIR",
        "directory of the bundled tasks' archives (default: library in the data directory)",
    )
    watch: Path | None = _option(
        parse_path,
        None,
        "DIR",
        "upload the archives that arrive in this directory, and below it, to the library",
    )
    watch_settle: float = _option(
        parse_interval,
        5.0,
        "DURATION",
        "how long a file in that directory must not have changed",
    )
    watch_interval: float = _option(
        parse_interval, 300.0, "DURATION", "time between two scans of that directory"
    )
    no_scheduler: bool = _switch("run no jobs, only serve the APIs")
    jobs: int = _option(parse_count, 4, "N", "number of jobs to run at the same time")
    spare: int = _option(parse_count, 1, "N", "number of spare slots for jobs of high priority")
    spare_min_priority: int = _option(
        parse_int32, 1, "N", "lowest priority of a job that may use a spare slot"
    )
    queues: tuple[str, ...] = _option(
        parse_text,
        ("default",),
        "QUEUE",
        "queue to take jobs from; may be given several times, or separated by commas",
        many=True,
    )
    limit: tuple[tuple[str, int], ...] = _option(
        parse_limit,
        (),
        "TASK=N",
        "run at most N jobs of a task at the same time; may be given several times",
        many=True,
    )
    grace: float = _option(
        parse_seconds, 30.0, "DURATION", "time for running jobs to finish when the server stops"
    )
    missing_after: float = _option(
        parse_interval,
        90.0,
        "DURATION",
        "time without a heartbeat after which a worker is gone and its jobs fail",
    )
    remove_after: float = _option(
        parse_seconds, 172_800.0, "DURATION", "time after which finished jobs are removed"
    )
    stuck_after: float = _option(
        parse_interval,
        172_800.0,
        "DURATION",
        "time after which a job that is due but not taken fails, even if it waits for its parents",
    )
    repair_interval: float = _option(
        parse_interval, 60.0, "DURATION", "longest time between two repairs"
    )
    log_level: str = _option(parse_level, "INFO", "LEVEL", "debug, info, warning or error")

    @property
    def key_path(self) -> Path:
        """Path of the key file, which is used if no key is given."""
        return self.key_file or self.data_dir / KEY_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Settings of the commands that call a server; the same TOML file may contain them."""

    # Without a default, to know whether it was given.
    target: str | None = _option(
        parse_target,
        None,
        "HOST:PORT",
        f"gRPC address; default: of the data directory's server, else {DEFAULT_TARGET}",
    )
    tls: bool = _switch("connect with TLS, trusting the certificate authorities built into gRPC")
    tls_ca: Path | None = _option(
        parse_path,
        None,
        "FILE",
        "connect with TLS, trusting the certificate authorities in this file (PEM)",
    )
    timeout: float = _option(parse_interval, 30.0, "DURATION", "time to wait for a response")


OPTIONS: Final[Mapping[str, Option]] = {
    each.name: Option(name=each.name, **each.metadata)
    for table in (Settings, ConnectionSettings)
    for each in fields(table)
}


def pick(*names: str) -> tuple[Option, ...]:
    """Return the options with these names."""
    return tuple(OPTIONS[name] for name in names)


SERVE_OPTIONS: Final = pick(*(each.name for each in fields(Settings)))
ADDRESS_OPTIONS: Final = pick("target", "data_dir", "tls", "tls_ca")
"""Options that select the server, for commands that need no key."""
ENDPOINT_OPTIONS: Final = (*ADDRESS_OPTIONS, *pick("api_key", "key_file"))
"""Options that select the server and the key."""
CONNECTION_OPTIONS: Final = (*ENDPOINT_OPTIONS, *pick("timeout"))
TASK_OPTIONS: Final = pick("data_dir", "tasks", "no_library", "library_dir")
"""Options that select the tasks and the directory of the bundled ones."""
