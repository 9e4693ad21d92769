"""The task that downloads an archive into the library."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from minion_client import Job, task

from minion_server.library import arguments
from minion_server.library.download.url import Url
from minion_server.library.errors import DownloadError, NotInLibraryError, RefusedError
from minion_server.library.index import Index
from minion_server.library.metadata import SOURCE, MetadataStore
from minion_server.library.plugins import PluginError, find_downloader, run_plugin
from minion_server.library.progress import Progress
from minion_server.library.settings import HIDDEN, Settings
from minion_server.library.upload import take


class DownloadResult(TypedDict):
    """The result of `download_url`, with LANraragi's keys."""

    success: int
    url: str
    id: str
    category: str | None
    title: str
    message: str


@task("download_url", timeout=4 * 3600, priority=1, attempts=5)
def download_url(job: Job, url: object, catid: object = None) -> DownloadResult:
    """Download an archive and take it into the library as `handle_upload` does.

    A plugin for downloads whose pattern fits prepares the URL. The archive gets the tag
    `source:<url>`, and a URL that an archive was downloaded from is not downloaded again.

    Args:
        job: The job; it is noted `bytes_processed` and `total_bytes`, if the size is known.
        url: An http or https URL.
        catid: Category to add the archive to, or null.

    Returns:
        `success` (1, or 0 for a URL or file that is refused), `url` as the tag holds it, `id`,
        `category`, `title` and `message`.

    Raises:
        DownloadError: The download failed and the job may run again, which continues it.
        LibraryError: The library itself cannot be read or written.
    """
    settings = Settings.from_environment()
    result = DownloadResult(success=0, url="", id="", category=None, title="", message="")
    try:
        result["category"] = arguments.optional_text("catid", catid)
        source = source_of(url)
        result["url"] = source
        if found := _downloaded(source, settings):
            result["id"] = found
            if result["category"] is not None:
                # The job may have been killed before it did this.
                metadata = MetadataStore(Index(settings.directory).database)
                metadata.add_to_category(result["category"], found)
            result["message"] = "This URL is already downloaded."
            return result
        with _download(job, str(url), settings) as path:
            upload = take(
                str(path), catid, settings, tags=(SOURCE + source,), progress=Progress(job, "pages")
            )
    except (RefusedError, PluginError) as error:
        result["message"] = str(error)
    except DownloadError as error:
        if job.attempts > 1:
            raise
        result["message"] = str(error)
    else:
        result = {**upload, "url": source}
    job.log.info("%s: %s", result["url"], result["message"])
    return result


def source_of(url: object) -> str:
    """Return a URL as source tags hold it: without scheme, user, `www.`, fragment and last slash.

    Raises:
        RefusedError: It is no http or https URL.
    """
    parsed = Url.parse(url)
    text = f"{parsed.netloc.removeprefix('www.')}{parsed.path}".rstrip("/") + parsed.query
    # Commas separate tags.
    return text.replace(",", "%2C")


def _downloaded(source: str, settings: Settings) -> str:
    """Return the id of the archive that has been downloaded from there, or ""."""
    index = Index(settings.directory)
    for archive_id in MetadataStore(index.database).find_by_tag(SOURCE + source):
        try:
            return index.entry(archive_id).id
        except NotInLibraryError:
            continue
    return ""


@contextmanager
def _download(job: Job, url: str, settings: Settings) -> Iterator[Path]:
    # The other tasks load faster without it.
    from minion_server.library.download.fetch import fetch  # noqa: PLC0415

    folder = settings.directory / HIDDEN / "downloads"
    plugin = find_downloader(url)
    with tempfile.TemporaryDirectory(prefix="minion-plugin-") as temporary:
        if plugin is not None:
            prepared = run_plugin(plugin, settings, url=url, folder=Path(temporary))
            if isinstance(prepared, Path):
                yield prepared
                return
            if not isinstance(prepared, str):
                raise PluginError(f"{plugin.namespace} failed: it returned no URL and no path")
            url = prepared

        def progress(received: int, total: int | None) -> None:
            job.note(bytes_processed=received, total_bytes=total)

        with fetch(url, folder, settings.downloads, progress=progress) as download:
            yield download.path
