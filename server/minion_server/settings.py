"""The settings of a server, and where each may come from.

A setting is taken from its flag, else from its `MINION_*` variable, else from the TOML file, else
it has its default. `OPTIONS` is the one table that flags, variables, file and help are made of.
"""

from __future__ import annotations

import os
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from minion_server import keys
from minion_server.domain.errors import Invalid
from minion_server.setting_values import (
    parse_address,
    parse_count,
    parse_flag,
    parse_interval,
    parse_level,
    parse_limit,
    parse_path,
    parse_priority,
    parse_seconds,
    parse_text,
)

CONFIG_FILE = "minion.toml"
ADDRESS_FILE = "server.json"
"""Tells commands on this machine where the server of a data directory listens."""
VARIABLE_PREFIX = "MINION_"


def default_data_dir() -> Path:
    """Answer where a server of this user keeps its data."""
    return Path(platformdirs.user_data_dir("minion", appauthor=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting.

    Attributes:
        name: As in the TOML file; the flag has dashes for underscores, the variable capitals.
        parse: Reads its text; raises ValueError with what is wrong.
        help: What it is, for people.
        default: Its value when nothing is given.
        many: Whether it may be given several times; the variable has commas between.
        metavar: Stands for its value in the help; None for a yes or no.
    """

    name: str
    parse: Callable[[str], Any]
    help: str
    default: Any = None
    many: bool = False
    metavar: str | None = "TEXT"

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The variable of the environment."""
        return VARIABLE_PREFIX + self.name.upper()

    def read(self, text: str, origin: str) -> Any:
        """Read one value.

        Raises:
            Invalid: It cannot be accepted; names where it came from.
        """
        try:
            return self.parse(text)
        except ValueError as error:
            raise Invalid(origin, f"{error}, not {text!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of all `OPTIONS` of `minion serve`, under the same names."""

    data_dir: Path
    database: str | None
    grpc_listen: tuple[str, int]
    http_listen: tuple[str, int]
    no_http: bool
    api_key: str | None
    key_file: Path | None
    tasks: tuple[str, ...]
    no_library: bool
    library_dir: Path | None
    no_scheduler: bool
    jobs: int
    spare: int
    spare_min_priority: int
    queues: tuple[str, ...]
    limit: tuple[tuple[str, int], ...]
    grace: float
    missing_after: float
    remove_after: float
    stuck_after: float
    repair_interval: float
    log_level: str

    @property
    def key_path(self) -> Path:
        """Where the key is kept when none is given."""
        return self.key_file or self.data_dir / keys.KEY_FILE


DATA_DIR = Option(
    name="data_dir",
    parse=parse_path,
    help="where the database and the key are kept",
    default=default_data_dir(),
    metavar="DIR",
)
API_KEY = Option(
    name="api_key",
    parse=parse_text,
    help="the key that callers show (better in the variable or a file than in the flag)",
    metavar="KEY",
)
KEY_FILE = Option(
    name="key_file",
    parse=parse_path,
    help="file that holds the key (default: api-key in the data directory, made if need be)",
    metavar="FILE",
)
LOG_LEVEL = Option(
    name="log_level",
    parse=parse_level,
    help="debug, info, warning or error",
    default="INFO",
    metavar="LEVEL",
)
OPTIONS: tuple[Option, ...] = (
    DATA_DIR,
    Option(
        name="database",
        parse=parse_text,
        help="the database, if not the embedded one: sqlite:///PATH or postgresql://...",
        metavar="URL",
    ),
    Option(
        name="grpc_listen",
        parse=parse_address,
        help="address of the gRPC API; port 0 takes a free one",
        default=("127.0.0.1", 50051),
        metavar="HOST:PORT",
    ),
    Option(
        name="http_listen",
        parse=parse_address,
        help="address of the REST API; port 0 takes a free one",
        default=("127.0.0.1", 8080),
        metavar="HOST:PORT",
    ),
    Option(name="no_http", parse=parse_flag, help="serve no REST API", default=False, metavar=None),
    API_KEY,
    KEY_FILE,
    Option(
        name="tasks",
        parse=parse_text,
        help="module that defines tasks; may be given several times",
        default=(),
        many=True,
        metavar="MODULE",
    ),
    Option(
        name="no_library",
        parse=parse_flag,
        help="leave out the bundled tasks",
        default=False,
        metavar=None,
    ),
    Option(
        name="library_dir",
        parse=parse_path,
        help="where the bundled tasks keep archives (default: library in the data directory)",
        metavar="DIR",
    ),
    Option(
        name="no_scheduler",
        parse=parse_flag,
        help="perform no jobs: serve the APIs only",
        default=False,
        metavar=None,
    ),
    Option(
        name="jobs",
        parse=parse_count,
        help="how many jobs to perform at the same time",
        default=4,
        metavar="N",
    ),
    Option(
        name="spare",
        parse=parse_count,
        help="how many more, for jobs of high priority alone",
        default=1,
        metavar="N",
    ),
    Option(
        name="spare_min_priority",
        parse=parse_priority,
        help="priority from which a job may use a spare slot",
        default=1,
        metavar="N",
    ),
    Option(
        name="queues",
        parse=parse_text,
        help="queue to take jobs from; may be given several times, or with commas between",
        default=("default",),
        many=True,
        metavar="QUEUE",
    ),
    Option(
        name="limit",
        parse=parse_limit,
        help="perform at most N jobs of a task at the same time; may be given several times",
        default=(),
        many=True,
        metavar="TASK=N",
    ),
    Option(
        name="grace",
        parse=parse_seconds,
        help="seconds that running jobs are given when the server is told to stop",
        default=30.0,
        metavar="SECONDS",
    ),
    Option(
        name="missing_after",
        parse=parse_interval,
        help="seconds without a heartbeat after which a worker is gone and its jobs fail",
        default=90.0,
        metavar="SECONDS",
    ),
    Option(
        name="remove_after",
        parse=parse_seconds,
        help="seconds after which finished jobs are removed",
        default=172_800.0,
        metavar="SECONDS",
    ),
    Option(
        name="stuck_after",
        parse=parse_interval,
        help="seconds after which a job that should have run fails, one that waits for parents too",
        default=172_800.0,
        metavar="SECONDS",
    ),
    Option(
        name="repair_interval",
        parse=parse_interval,
        help="seconds between two repairs, at most",
        default=60.0,
        metavar="SECONDS",
    ),
    LOG_LEVEL,
)
OF_CLIENTS = frozenset({"target", "timeout", "tls", "tls_ca"})
"""Names of settings that only commands which call a server have; the same file may hold them."""


def add_arguments(parser: ArgumentParser, options: Sequence[Option]) -> None:
    """Add the flags of options, and `--config`, to a command."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file of settings (MINION_CONFIG; default: {CONFIG_FILE} in the data directory)",
    )
    for option in options:
        add_option(parser, option)


def add_option(parser: ArgumentParser, option: Option) -> None:
    """Add the flag of an option to a command."""
    names = f"{option.variable}, {option.name}"
    default = _shown(option.default)
    help_text = f"{option.help} ({names}{'; default: ' + default if default else ''})"
    if option.metavar is None:
        parser.add_argument(option.flag, action="store_const", const="true", help=help_text)
    else:
        parser.add_argument(
            option.flag,
            metavar=option.metavar,
            action="append" if option.many else "store",
            # argparse takes % for its own
            help=help_text.replace("%", "%%"),
        )


def resolve(
    options: Sequence[Option], arguments: Namespace, environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Answer the value of each option.

    Raises:
        Invalid: A value cannot be accepted, or the file has a setting that does not exist.
    """
    values: dict[str, Any] = {}
    file: Mapping[str, Any] | None = None
    # First the directory, which says where the file is.
    for option in sorted(options, key=lambda option: option.name != DATA_DIR.name):
        given = getattr(arguments, option.name)
        if given is not None:
            values[option.name] = _read_texts(option, given, option.flag)
        elif option.variable in environ and (environ[option.variable] or option.metavar is None):
            values[option.name] = _read_texts(option, environ[option.variable], option.variable)
        else:
            if file is None:
                file = _read_file(arguments.config, environ, values.get("data_dir"))
            values[option.name] = (
                _read_toml(option, file[option.name]) if option.name in file else option.default
            )
    return values


def load(arguments: Namespace, environ: Mapping[str, str] = os.environ) -> Settings:
    """Answer the settings of `minion serve`.

    Raises:
        Invalid: A value cannot be accepted.
    """
    settings = Settings(**resolve(OPTIONS, arguments, environ))
    if settings.jobs + settings.spare == 0 and not settings.no_scheduler:
        raise Invalid("--jobs", "must be at least 1, unless --no-scheduler is given")
    return settings


def _read_texts(option: Option, given: str | Sequence[str], origin: str) -> Any:
    if not option.many:
        assert isinstance(given, str)
        return option.read(given, origin)
    texts = (
        given.split(",")
        if isinstance(given, str)
        else [text for one in given for text in one.split(",")]
    )
    return tuple(option.read(text.strip(), origin) for text in texts)


def _read_file(
    given: str | None, environ: Mapping[str, str], data_dir: Path | None
) -> Mapping[str, Any]:
    named = given or environ.get(VARIABLE_PREFIX + "CONFIG")
    path = Path(named) if named else (data_dir or DATA_DIR.default) / CONFIG_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise Invalid("--config", f"there is no file {path}") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid("--config", f"cannot read {path}: {error}") from None
    known = OF_CLIENTS | {option.name for option in OPTIONS}
    for name in content:
        if name not in known:
            raise Invalid(f"{path}: {name}", "is no setting")
    return content


def _read_toml(option: Option, value: Any) -> Any:
    if option.many:
        entries = value if isinstance(value, list) else [value]
        return tuple(option.read(_toml_text(entry), option.name) for entry in entries)
    return option.read(_toml_text(value), option.name)


def _toml_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(default: Any) -> str:
    match default:
        case None | False | ():
            return ""
        case (str() as host, int() as port):
            return f"{host}:{port}"
        case tuple():
            return ",".join(default)
        case float():
            return f"{default:g}"
        case _:
            return str(default)
