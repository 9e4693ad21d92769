"""The tasks that draw thumbnails and pages, under LANraragi's names and with its arguments."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from minion_client import Job, task

from minion_server.library import arguments, images, thumbnails
from minion_server.library.cache import PageCache
from minion_server.library.errors import LibraryError, PageError
from minion_server.library.index import Entry, Index
from minion_server.library.metadata import MetadataStore, Tank
from minion_server.library.progress import Progress
from minion_server.library.settings import Settings

_COVER = 0
_NO_ARCHIVES = "No archives in tank."


@task("thumbnail_task", timeout=120, attempts=3)
def thumbnail_task(
    job: Job,  # noqa: ARG001 - every task gets it
    thumbdir: object,
    id: object,  # noqa: A002 - LANraragi's name
    page: object,
) -> str:
    """Make the thumbnail of one page, also if there is one.

    Args:
        job: The job.
        thumbdir: Directory of the thumbnails.
        id: The archive's id.
        page: Number of the page, from 1; 0 is the cover: the first page, in higher quality.

    Returns:
        The thumbnail's path: `<thumbdir>/<id[:2]>/<id>.jpg` for the cover, else
        `<thumbdir>/<id[:2]>/<id>/<page>.jpg`.

    Raises:
        LibraryError: An argument is invalid, the archive or page is missing or cannot be read, or
            the thumbnail cannot be written.
    """
    images.require_pillow()
    settings = Settings.from_environment()
    directory = arguments.path("thumbdir", thumbdir)
    archive_id = arguments.archive_id(id)
    number = arguments.whole_number("page", page)
    if number == _COVER:
        return str(thumbnails.draw_cover(settings, directory, archive_id))
    target = thumbnails.page_path(directory, archive_id, number)
    thumbnails.write(target, thumbnails.draw_page(settings, archive_id, number, images.PAGE))
    return str(target)


@task("tank_thumbnail_task", timeout=120, attempts=3)
def tank_thumbnail_task(job: Job, thumbdir: object, tank: object) -> str:
    """Make the thumbnail of a tank from the cover of its first archive.

    Args:
        job: The job.
        thumbdir: Directory of the thumbnails.
        tank: The tank's id, `TANK_` and ten digits.

    Returns:
        The thumbnail's path, `<thumbdir>/TA/<tank>.jpg`, or a text if the tank is empty.

    Raises:
        LibraryError: See `thumbnail_task`; or there is no such tank.
    """
    images.require_pillow()
    settings = Settings.from_environment()
    directory = arguments.path("thumbdir", thumbdir)
    found = MetadataStore(Index(settings.directory).database).tank(arguments.tank_id(tank))
    if not found.archives:
        job.log.info("%s has no archives", found.id)
        return _NO_ARCHIVES
    return str(_draw_tank(settings, directory, found))


@task("page_thumbnails", timeout=3600, attempts=3)
def page_thumbnails(
    job: Job,
    id: object,  # noqa: A002 - LANraragi's name
    force: object = 0,
) -> dict[str, list[str]]:
    """Make the thumbnails of all pages of an archive in the library's thumbnail directory.

    After each page the job is noted `"<n>": "processed"`, `total_pages` and `id`, also if the page
    cannot be read, as LANraragi's reader expects. Pages are done in the order of storage.

    Args:
        job: The job.
        id: The archive's id.
        force: 1 to replace existing thumbnails; 0 to make only the missing ones.

    Returns:
        `errors`: a line for each page that cannot be read.

    Raises:
        LibraryError: An argument is invalid, the archive is missing or cannot be read, or a
            thumbnail cannot be written.
    """
    images.require_pillow()
    settings = Settings.from_environment()
    archive_id = arguments.archive_id(id)
    is_forced = arguments.flag("force", force)
    errors: list[tuple[int, str]] = []

    def path(page: int) -> Path:
        return thumbnails.page_path(settings.thumbnails, archive_id, page)

    pages = thumbnails.draw_pages(settings, archive_id, path, images.PAGE, force=is_forced)
    for number, total, error in pages:
        if error is not None:
            job.log.warning("page %d of %s: %s", number, archive_id, error)
            errors.append((number, f"page {number}: {error}"))
        job.note(**{str(number): "processed", "total_pages": total, "id": archive_id})
    return {"errors": [text for _, text in sorted(errors)]}


@task("regen_all_thumbnails", timeout=24 * 3600)
def regen_all_thumbnails(job: Job, thumbdir: object, force: object = 0) -> dict[str, list[str]]:
    """Make the thumbnails of the covers of all archives and tanks.

    Args:
        job: The job; it is noted `archives_processed` and `total_archives`.
        thumbdir: Directory of the thumbnails.
        force: 1 to replace existing thumbnails; 0 to make only the missing ones.

    Returns:
        `errors`: a line for each archive or tank whose cover cannot be drawn.

    Raises:
        LibraryError: An argument is invalid, or the library cannot be read.
    """
    images.require_pillow()
    settings = Settings.from_environment()
    directory = arguments.path("thumbdir", thumbdir)
    is_forced = arguments.flag("force", force)
    index = Index(settings.directory)
    errors: list[str] = []

    entries, progress = index.entries(), Progress(job, "archives")

    def is_wanted(entry: Entry) -> bool:
        exists = thumbnails.cover_path(directory, entry.id).exists()
        return is_forced or not exists or entry.thumbhash is None

    covers = thumbnails.draw_covers(settings, directory, entries, is_wanted)
    for done, (entry, error) in enumerate(covers, start=1):
        if error is not None:
            job.log.warning("%s: %s", entry.file, error)
            errors.append(f"{entry.file}: {error}")
        progress(done, len(entries))
    for tank in MetadataStore(index.database).tanks():
        exists = thumbnails.cover_path(directory, tank.id).exists()
        if tank.archives and (is_forced or not exists):
            try:
                _draw_tank(settings, directory, tank)
            except LibraryError as error:
                errors.append(f"{tank.id}: {error}")
    return {"errors": errors}


@task("warm_cache", timeout=24 * 3600)
def warm_cache(job: Job, count: object = 10) -> dict[str, Any]:
    """Put covers, page lists and pages of the newest archives into the cache.

    Args:
        job: The job; it is noted `archives_processed` and `total_archives`.
        count: How many archives.

    Returns:
        `archives`, how many are in the cache now; `errors`, a line for each archive or page that
        cannot be read.

    Raises:
        LibraryError: An argument is invalid, or the library or cache cannot be read or written.
    """
    images.require_pillow()
    settings, progress = Settings.from_environment(), Progress(job, "archives")
    number = arguments.whole_number("count", count)
    if number < 0:
        raise LibraryError(f"count must not be negative, got {number}")
    entries, cache, errors = Index(settings.directory).entries()[:number], PageCache(settings), []
    # The newest last: the cache forgets what was made first.
    for done, entry in enumerate(reversed(entries), start=1):
        try:
            if not thumbnails.cover_path(settings.thumbnails, entry.id).exists():
                # The first page is drawn below as well, where its error is reported.
                with suppress(PageError):
                    thumbnails.draw_cover(settings, settings.thumbnails, entry.id)
            for page, _, error in cache.warm(entry):
                job.check()
                if error is not None:
                    errors.append(f"{entry.file}: page {page}: {error}")
        except LibraryError as error:
            errors.append(f"{entry.file}: {error}")
        cache.shrink()
        progress(done, len(entries))
    return {"archives": sum(map(cache.has, entries)), "errors": errors}


def _draw_tank(settings: Settings, directory: Path, tank: Tank) -> Path:
    path = thumbnails.cover_path(directory, tank.id)
    cover = thumbnails.draw_page(settings, tank.archives[0], 1, images.COVER)
    thumbnails.write(path, cover)
    return path
