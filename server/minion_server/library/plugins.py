"""Plugins: functions of other packages that read metadata, run scripts or prepare downloads.

A package offers one with an entry point of the group `minion.plugins` that names a `Plugin`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from minion_client import JobCancelled

from minion_server.library.errors import LibraryError, reason
from minion_server.library.index import Entry, Index
from minion_server.library.metadata import Metadata
from minion_server.library.settings import Settings
from minion_server.settings.values import parse_flag

GROUP: Final = "minion.plugins"

ParameterValue: TypeAlias = str | int | bool


class PluginError(LibraryError):
    """A plugin failed, or cannot be used; the text is shown to the user."""


class NoMetadataError(PluginError):
    """An archive has no metadata of the plugin's kind, which is no fault."""


class PluginKind(StrEnum):
    """The purpose of a plugin."""

    METADATA = "metadata"
    SCRIPT = "script"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A setting of a plugin.

    Its value is the variable `MINION_PLUGIN_<NAMESPACE>_<NAME>`, or else the default, whose type
    it has.
    """

    default: ParameterValue
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCall:
    """The argument of every plugin; that of a script.

    Attributes:
        settings: Of the library.
        parameters: A value for each parameter that the plugin declares.
        arg: The argument of this run, or "".
        progress: Notes how many of how many steps are done.
    """

    settings: Settings
    parameters: Mapping[str, ParameterValue]
    arg: str = ""
    progress: Callable[[int, int], None] = lambda _done, _total: None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataCall(PluginCall):
    """The argument of a plugin for metadata: an archive and its file."""

    archive: Entry
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadCall(PluginCall):
    """The argument of a plugin for downloads: a URL, and a folder that is removed afterwards."""

    url: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin.

    Attributes:
        namespace: Its name: lower-case letters, digits and underscores.
        kind: Decides what `run` is given and returns.
        run: Returns a `Metadata` (metadata), a JSON object (script), or a `str` with the address to
            download instead, or the `Path` of a file in the folder (download). Raises PluginError
            with a text for the user.
        url_pattern: For downloads: a regular expression of the addresses it is for.
    """

    namespace: str
    name: str
    description: str
    kind: PluginKind
    run: Callable[[Any], Any]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    url_pattern: str = ""


def find_plugin(namespace: str) -> Plugin:
    """Return the plugin of a namespace, or raise PluginError."""
    plugins = find_plugins()
    if namespace not in plugins:
        known = ", ".join(sorted(plugins)) or "none"
        raise PluginError(f"plugin: there is no {namespace!r}; installed: {known}")
    return plugins[namespace]


@cache
def find_plugins() -> dict[str, Plugin]:
    """Return all installed plugins by their namespaces.

    Raises:
        PluginError: One cannot be imported, or is no plugin.
    """
    # Processes load faster without it.
    from importlib.metadata import entry_points  # noqa: PLC0415

    plugins: dict[str, Plugin] = {}
    for point in entry_points(group=GROUP):
        try:
            plugin = point.load()
        except Exception as error:
            raise PluginError(
                f"plugin {point.name}: cannot import {point.value}: {reason(error)}"
            ) from error
        if not isinstance(plugin, Plugin):
            raise PluginError(f"plugin {point.name}: {point.value} is not a Plugin")
        plugins[plugin.namespace] = plugin
    return plugins


def find_downloader(url: str) -> Plugin | None:
    """Return the plugin that prepares downloads of an address, or None."""
    for _, plugin in sorted(find_plugins().items()):
        if plugin.kind is PluginKind.DOWNLOAD and re.search(plugin.url_pattern, url):
            return plugin
    return None


_CALLS: Final = {
    PluginKind.METADATA: MetadataCall,
    PluginKind.SCRIPT: PluginCall,
    PluginKind.DOWNLOAD: DownloadCall,
}


def run_plugin(plugin: Plugin, settings: Settings, **call: Any) -> Any:
    """Run a plugin, and return what it returns.

    Args:
        plugin: The plugin.
        settings: Of the library.
        call: The other attributes of the `PluginCall` of its kind.

    Raises:
        PluginError: It failed, or a parameter is invalid.
    """
    parameters = {
        name: _value(plugin, name, parameter, os.environ)
        for name, parameter in plugin.parameters.items()
    }
    try:
        return plugin.run(_CALLS[plugin.kind](settings=settings, parameters=parameters, **call))
    except (PluginError, JobCancelled):
        raise
    except LibraryError as error:
        raise PluginError(str(error)) from error
    except Exception as error:
        # A plugin is another's code, and may raise anything.
        raise PluginError(f"{plugin.namespace} failed: {type(error).__name__}: {error}") from error


def read_metadata(
    namespace: str, archive_id: str, settings: Settings, *, arg: str = ""
) -> Metadata:
    """Run a plugin of metadata on an archive.

    Raises:
        PluginError: It failed, or is not for metadata.
        NotInLibraryError: The library has no such archive.
    """
    plugin = find_plugin(namespace)
    if plugin.kind is not PluginKind.METADATA:
        raise PluginError(f"plugin: {namespace} is of the kind {plugin.kind}, not metadata")
    entry = Index(settings.directory).entry(archive_id)
    found: Metadata = run_plugin(
        plugin, settings, archive=entry, path=settings.directory / entry.file, arg=arg
    )
    try:
        return found.plain()
    except (AttributeError, TypeError) as error:
        raise PluginError(f"{namespace} failed: it returned no Metadata of texts") from error


def _value(
    plugin: Plugin, name: str, parameter: Parameter, environment: Mapping[str, str]
) -> ParameterValue:
    variable = f"MINION_PLUGIN_{plugin.namespace}_{name}".upper()
    text = environment.get(variable)
    if not text:
        return parameter.default
    try:
        if isinstance(parameter.default, bool):
            return parse_flag(text)
        return type(parameter.default)(text)
    except ValueError as error:
        kind = type(parameter.default).__name__
        raise PluginError(f"{variable}: expected a value of type {kind}, got {text!r}") from error
