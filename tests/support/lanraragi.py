"""Checks of the fields that LANraragi's pages read of jobs, and of their types.

Each function takes the answer of `GET /api/minion/:jobid/detail` for a job that has finished, as
`checkJobStatus` (public/js/mod/server.js) passes it on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Answer = Mapping[str, Any]

STATES = frozenset({"inactive", "active", "finished", "failed"})


def check_status(answer: Answer) -> None:
    """Check what `checkJobStatus` reads: `error` is falsy, or shown in place of the state."""
    assert answer["state"] in STATES
    assert not answer.get("error")
    assert isinstance(answer["notes"], dict)


def check_upload(answer: Answer) -> None:
    """Check a row of the upload page (upload.js), of uploads and downloads alike."""
    check_status(answer)
    result = answer["result"]
    # The row counts as done if this is true for JavaScript.
    assert result["success"] in {0, 1}
    # HTML is escaped by a function of texts.
    assert isinstance(result["message"], str)
    if result["success"]:
        # The links to the reader and the edit page.
        assert isinstance(result["id"], str)
        assert len(result["id"]) == 40
        assert isinstance(result["title"], str)


def check_page_thumbnails(answer: Answer) -> None:
    """Check the reader's overlay (reader_common.js), which asks for notes alone."""
    check_status(answer)
    notes = answer["notes"]
    assert isinstance(notes["total_pages"], int | str)
    assert isinstance(notes["id"], str)
    pages = range(1, int(notes["total_pages"]) + 1)
    assert [notes.get(str(page)) for page in pages] == ["processed"] * len(pages)


def check_thumbnail(answer: Answer) -> None:
    """Check the thumbnail of a page or tank: its path."""
    check_status(answer)
    assert isinstance(answer["result"], str)


def check_regenerated(answer: Answer) -> None:
    """Check the toast of regenerateThumbnails (server.js), which shows the errors as text."""
    check_status(answer)
    assert all(isinstance(error, str) for error in answer["result"]["errors"])


def check_plugin(answer: Answer) -> None:
    """Check what triggerScript (server.js) shows: the data, or the error."""
    check_status(answer)
    result = answer["result"]
    # Compared with ===.
    assert isinstance(result["success"], int)
    if result["success"] == 1:
        assert isinstance(result["data"], dict)
    else:
        assert isinstance(result["error"], str)


def check_backup(answer: Answer) -> None:
    """Check the progress of a backup or its restoration (backup.js), and its result."""
    check_status(answer)
    assert answer["result"]["success"] == 1
    notes = answer["notes"]
    assert isinstance(notes["status"], str)
    for things in ("categories", "tankoubons", "archives"):
        assert isinstance(notes[f"{things}_processed"], int)
        assert isinstance(notes[f"total_{things}"], int)


CHECKS: Mapping[str, Callable[[Answer], None]] = {
    "backup_json": check_backup,
    "build_stat_hashes": check_status,
    "download_url": check_upload,
    "find_duplicates": check_status,
    "handle_upload": check_upload,
    "page_thumbnails": check_page_thumbnails,
    "regen_all_thumbnails": check_regenerated,
    "restore_backup": check_backup,
    "run_plugin": check_plugin,
    "tank_thumbnail_task": check_thumbnail,
    "thumbnail_task": check_thumbnail,
}
"""The check of each task's jobs."""
