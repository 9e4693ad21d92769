"""Makes the watcher of `minion serve --watch` of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minion_server.domain.errors import Invalid
from minion_server.settings.options import Settings
from minion_server.stores import is_shared
from minion_server.tasks import library_directory

if TYPE_CHECKING:
    from minion_client import AsyncClient

    from minion_server.library.watched_folder import WatchedFolder
    from minion_server.library.watcher import Watcher

DEFAULT_QUEUE = "default"


def check_watch(settings: Settings) -> None:
    """Do nothing if the folder to watch, if there is one, can be watched.

    Raises:
        Invalid: It cannot, or the bundled tasks or watchfiles are missing.
    """
    if settings.watch is None:
        return
    from minion_server.library.folder_events import require_watchfiles  # noqa: PLC0415 - see below

    if settings.no_library:
        raise Invalid("--watch", "needs the bundled tasks, which --no-library leaves out")
    require_watchfiles()
    _folder(settings)


def make_watcher(settings: Settings, client: AsyncClient) -> Watcher:
    """Return the watcher that the settings describe.

    Raises:
        Invalid: See `check_watch`.
    """
    # Servers without it start faster.
    from minion_server.library.watcher import Watcher  # noqa: PLC0415 - see above

    queues = settings.queues
    return Watcher(
        client,
        _folder(settings),
        library_directory(settings.data_dir, settings.library_dir),
        queue=DEFAULT_QUEUE if DEFAULT_QUEUE in queues else queues[0],
        settle=settings.watch_settle,
        interval=settings.watch_interval,
        locked=is_shared(settings),
    )


def _folder(settings: Settings) -> WatchedFolder:
    from minion_server.library.watched_folder import WatchedFolder  # noqa: PLC0415 - see above

    assert settings.watch is not None
    library = library_directory(settings.data_dir, settings.library_dir)
    return WatchedFolder(settings.watch, library)
