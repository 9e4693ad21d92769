"""The tasks that take files into the library, and those that keep it.

Names, arguments, notes and results are LANraragi's, and so are the priorities and attempts of jobs
whose callers give none.
"""

from __future__ import annotations

from typing import Any

from minion_client import Job, task

from minion_server.library import arguments, duplicates
from minion_server.library.backup import restore_backup as restore
from minion_server.library.backup import write_backup
from minion_server.library.errors import LibraryError
from minion_server.library.index import Index
from minion_server.library.metadata import Metadata, MetadataStore, join_tags
from minion_server.library.plugins import (
    Plugin,
    PluginError,
    PluginKind,
    find_plugin,
    read_metadata,
)
from minion_server.library.plugins import run_plugin as run
from minion_server.library.progress import Progress
from minion_server.library.settings import Settings
from minion_server.library.stats import build_stats
from minion_server.library.thumbnails import draw_cover
from minion_server.library.upload import UploadResult, take


@task("handle_upload", timeout=1800, priority=2)
def handle_upload(job: Job, file: object, catid: object = None) -> UploadResult:
    """Copy an archive into the library; the file itself stays where it is.

    Args:
        job: The job; it is noted `pages_processed` and `total_pages` while the archive is checked.
        file: Path of the archive on this machine.
        catid: Category to add it to, or null.

    Returns:
        `success` (1, or 0 for a file that is refused), `id`, `category`, `title` and `message`.

    Raises:
        LibraryError: The library itself cannot be read or written.
    """
    result = take(file, catid, Settings.from_environment(), progress=Progress(job, "pages"))
    job.log.info("%r: %s", result["title"], result["message"])
    return result


@task("run_plugin", timeout=3600)
def run_plugin(
    job: Job,
    namespace: object,
    id: object = None,  # noqa: A002 - LANraragi's name
    arg: object = None,
) -> dict[str, Any]:
    """Run a plugin; the metadata that it finds is stored.

    Args:
        job: The job.
        namespace: The plugin's.
        id: For metadata: the archive's id.
        arg: Argument of this run, a string or null.

    Returns:
        `type` of the plugin, `success` (1 or 0), `error` (a text or null) and `data`: what a
        script returns, or `new_tags`, `title` and `summary`.
    """
    settings = Settings.from_environment()
    plugin: Plugin | None = None
    try:
        name = arguments.optional_text("namespace", namespace) or ""
        argument = arguments.optional_text("arg", arg) or ""
        plugin = find_plugin(name)
        data = _run(plugin, id, argument, settings, Progress(job, "archives"))
    except LibraryError as error:
        job.log.warning("%s", error)
        kind = plugin.kind.value if plugin else None
        return {"type": kind, "success": 0, "error": str(error), "data": {"error": str(error)}}
    return {"type": plugin.kind.value, "success": 1, "error": None, "data": data}


def _run(
    plugin: Plugin, archive_id: object, arg: str, settings: Settings, progress: Progress
) -> dict[str, Any]:
    match plugin.kind:
        case PluginKind.METADATA:
            return _store(
                arguments.archive_id(archive_id),
                read_metadata(
                    plugin.namespace, arguments.archive_id(archive_id), settings, arg=arg
                ),
                settings,
            )
        case PluginKind.SCRIPT:
            data = run(plugin, settings, arg=arg, progress=progress)
            if not isinstance(data, dict):
                raise PluginError(f"{plugin.namespace} failed: it returned no JSON object")
            return data
        case PluginKind.DOWNLOAD:
            raise PluginError(f"plugin: {plugin.namespace} is run by download_url alone")


def _store(archive_id: str, found: Metadata, settings: Settings) -> dict[str, Any]:
    new = MetadataStore(Index(settings.directory).database).update(archive_id, found)
    data = {"new_tags": join_tags(new)}
    if found.title is not None:
        data["title"] = found.title
    if found.summary is not None:
        data["summary"] = found.summary
    return data


@task("find_duplicates", timeout=3600)
def find_duplicates(job: Job, threshold: object = 5) -> dict[str, Any]:
    """Find archives whose covers look alike; covers without a hash are drawn first.

    Args:
        job: The job.
        threshold: Bits of the covers' 128 that may differ, 0 to 31.

    Returns:
        `groups`, lists of ids; `errors`, a line for each cover that cannot be drawn.

    Raises:
        LibraryError: An argument is invalid, or the library cannot be read.
    """
    limit = arguments.whole_number("threshold", threshold)
    if not 0 <= limit <= duplicates.MAX_THRESHOLD:
        raise LibraryError(f"threshold must be from 0 to {duplicates.MAX_THRESHOLD}, not {limit}")
    settings, progress, errors = Settings.from_environment(), Progress(job, "archives"), []
    index = Index(settings.directory)
    entries = index.entries()
    for done, entry in enumerate(entries, start=1):
        if entry.thumbhash is None:
            try:
                draw_cover(settings, settings.thumbnails, entry.id)
            except LibraryError as error:
                errors.append(f"{entry.file}: {error}")
        progress(done, len(entries))
    hashes = {entry.id: int(entry.thumbhash, 16) for entry in index.entries() if entry.thumbhash}
    return {"groups": duplicates.group_similar(hashes, limit), "errors": errors}


@task("build_stat_hashes", timeout=600, priority=3)
def build_stat_hashes(job: Job) -> dict[str, int]:
    """Count the library's tags into `.minion/stats.json`.

    Returns:
        `archives`, `pages`, `bytes`, `untagged` (archives) and `tags` (different ones).

    Raises:
        LibraryError: The library cannot be read, or the file not written.
    """
    totals = build_stats(Settings.from_environment())
    job.log.info("%d tags of %d archives", totals["tags"], totals["archives"])
    return totals


@task("backup_json", timeout=600)
def backup_json(job: Job) -> dict[str, Any]:
    """Write the metadata of the library to a file in LANraragi's format.

    Returns:
        `success` 1, `filename` and `path`.

    Raises:
        LibraryError: The library cannot be read, or the file not written.
    """
    path = write_backup(Settings.from_environment(), job.id, lambda notes: job.note(**notes))
    return {"success": 1, "filename": path.name, "path": str(path)}


@task("restore_backup", timeout=3600)
def restore_backup(job: Job, json: object) -> dict[str, int]:
    """Restore the metadata of a backup, for archives that the library has.

    Args:
        job: The job.
        json: The content of a file that `backup_json` or LANraragi wrote, as one string.

    Returns:
        `success` 1.

    Raises:
        LibraryError: It is no backup (nothing is changed then), or the library cannot be written.
    """
    restore(Settings.from_environment(), json, lambda notes: job.note(**notes))
    return {"success": 1}
