"""The sources of settings: flags, then environment variables, the TOML file and defaults."""

from __future__ import annotations

import os
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minion_server.domain.errors import Invalid
from minion_server.settings.options import OPTIONS, SERVE_OPTIONS, VARIABLE_PREFIX, Option, Settings

CONFIG_FILE = "minion.toml"


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
    if option.is_flag:
        parser.add_argument(option.flag, action="store_const", const="true", help=help_text)
    else:
        parser.add_argument(
            option.flag,
            # Parsed later, together with values from other sources.
            type=str,
            metavar=option.metavar,
            action="append" if option.many else "store",
            # argparse formats help with %.
            help=help_text.replace("%", "%%"),
        )


def resolve(
    options: Sequence[Option], arguments: Namespace, environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return the value of each option.

    Raises:
        Invalid: A value is not valid, or the file has an unknown setting.
    """
    values: dict[str, Any] = {}
    file: Mapping[str, Any] | None = None
    # The data directory comes first, since it may contain the file.
    for option in sorted(options, key=lambda option: option.name != "data_dir"):
        given = getattr(arguments, option.name)
        if given is not None:
            values[option.name] = _read_texts(option, given, option.flag)
        elif option.variable in environ and (environ[option.variable] or option.is_flag):
            values[option.name] = _read_texts(option, environ[option.variable], option.variable)
        else:
            if file is None:
                file = _read_file(arguments.config, environ, values.get("data_dir"))
            values[option.name] = (
                _read_toml(option, file[option.name]) if option.name in file else option.default
            )
    return values


def load(arguments: Namespace, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of `minion serve`.

    Raises:
        Invalid: A value is not valid.
    """
    settings = Settings(**resolve(SERVE_OPTIONS, arguments, environ))
    if settings.jobs + settings.spare == 0 and not settings.no_scheduler:
        raise Invalid("--jobs", "expected at least 1 without --no-scheduler, got 0")
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
    path = Path(named) if named else (data_dir or OPTIONS["data_dir"].default) / CONFIG_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise Invalid("--config", f"cannot read {path}: no such file") from None
        return {}
    except RecursionError:
        raise Invalid("--config", f"cannot read {path}: nested too deeply") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid("--config", f"cannot read {path}: {error}") from None
    for name in content:
        if name not in OPTIONS:
            raise Invalid(f"{path}: {name}", "unknown setting")
    return content


def _read_toml(option: Option, value: Any) -> Any:
    if option.many:
        entries = value if isinstance(value, list) else [value]
        return tuple(option.read(_toml_text(entry, option), option.name) for entry in entries)
    return option.read(_toml_text(value, option), option.name)


def _toml_text(value: Any, option: Option) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case _:
            raise Invalid(option.name, f"expected a text or a number, got {type(value).__name__}")


def _shown(default: Any) -> str:
    match default:
        case None | False | ():
            return ""
        case (str() as host, int() as port):
            return f"{host}:{port}"
        case tuple():
            return ",".join(default)
        case float():
            return f"{default:g}s"
        case _:
            return str(default)
