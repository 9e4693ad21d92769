"""The tasks of the library, under the names and arguments that LANraragi gives them."""

from __future__ import annotations

from minion_client import Job, task

from minion_server.library import arguments, thumbnails
from minion_server.library.archive import open_archive
from minion_server.library.catalogue import Catalogue
from minion_server.library.errors import LibraryError, PageError
from minion_server.library.settings import Settings
from minion_server.library.upload import UploadResult, take

_COVER = 0


@task("handle_upload", timeout=1800)
def handle_upload(job: Job, file: object, catid: object = None) -> UploadResult:
    """Copy an archive into the library; the file itself stays where it is.

    Args:
        job: The job.
        file: Path of the archive on this machine.
        catid: Category to note with it, or null.

    Returns:
        `success` (1, or 0 for a file that is refused), `id`, `category`, `title` and `message`.

    Raises:
        LibraryError: The library itself cannot be read or written.
    """
    result = take(file, catid, Settings.from_environment())
    job.log.info("%r: %s", result["title"], result["message"])
    return result


@task("thumbnail_task", timeout=120)
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
    thumbnails.require_pillow()
    settings = Settings.from_environment()
    directory = arguments.path("thumbdir", thumbdir)
    archive_id = arguments.archive_id(id)
    number = arguments.whole_number("page", page)
    path = Catalogue(settings.directory).path(archive_id)
    with open_archive(path, settings.limits) as archive:
        if not _COVER <= number <= len(archive.pages):
            raise LibraryError(
                f"page must be from 0 to {len(archive.pages)} for {archive_id}, not {number}"
            )
        content = archive.read(archive.pages[max(number, 1) - 1])
    is_cover = number == _COVER
    try:
        thumbnail = thumbnails.draw(
            content,
            quality=thumbnails.COVER_QUALITY if is_cover else thumbnails.PAGE_QUALITY,
            pixels=settings.limits.pixels,
        )
    except PageError as error:
        raise PageError(f"page {number} of {archive_id}: {error}") from error
    target = (
        thumbnails.cover_path(directory, archive_id)
        if is_cover
        else thumbnails.page_path(directory, archive_id, number)
    )
    thumbnails.write(target, thumbnail)
    return str(target)


@task("page_thumbnails", timeout=3600)
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
    thumbnails.require_pillow()
    settings = Settings.from_environment()
    archive_id = arguments.archive_id(id)
    is_forced = arguments.flag("force", force)
    errors: list[tuple[int, str]] = []
    path = Catalogue(settings.directory).path(archive_id)
    with open_archive(path, settings.limits) as archive:
        total = len(archive.pages)
        stored = sorted(enumerate(archive.pages, start=1), key=lambda page: page[1].position)
        for number, page in stored:
            target = thumbnails.page_path(settings.thumbnails, archive_id, number)
            if is_forced or not target.exists():
                try:
                    thumbnail = thumbnails.draw(
                        archive.read(page),
                        quality=thumbnails.PAGE_QUALITY,
                        pixels=settings.limits.pixels,
                    )
                except PageError as error:
                    job.log.warning("page %d of %s: %s", number, archive_id, error)
                    errors.append((number, f"page {number}: {error}"))
                else:
                    thumbnails.write(target, thumbnail)
            job.note(**{str(number): "processed", "total_pages": total, "id": archive_id})
    return {"errors": [text for _, text in sorted(errors)]}
