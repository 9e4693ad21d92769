"""Reports changes in a folder, by watchfiles, from a thread.

watchfiles reads the whole folder when it begins, and blocks meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from minion_server.domain.errors import Invalid
from minion_server.library.watched_folder import WatchedFolder

STEP_MILLISECONDS = 100
"""Time for which changes are collected after the last one; a stop takes as long."""
DEBOUNCE_MILLISECONDS = 1_000
"""The longest time for which changes are collected."""
READY_MILLISECONDS = 300
"""Time of the first report without a change."""


def require_watchfiles() -> None:
    """Raise Invalid if watchfiles is not installed."""
    try:
        import watchfiles  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise Invalid(
            "--watch",
            "needs watchfiles, which is not installed: pip install 'minion-server[library]'",
        ) from error


class FolderEvents:
    """Calls back, in the event loop that starts it, until it is stopped.

    Args:
        folder: The folder.
        on_begin: Called when changes are seen from now on.
        on_changes: Gets the paths that may have become archives or folders.
        on_end: Called when the folder itself is gone (None), or cannot be watched (why).
    """

    def __init__(
        self,
        folder: WatchedFolder,
        *,
        on_begin: Callable[[], None],
        on_changes: Callable[[frozenset[str]], None],
        on_end: Callable[[str | None], None],
    ) -> None:
        self._folder = folder
        self._on_begin = on_begin
        self._on_changes = on_changes
        self._on_end = on_end
        self._stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Begin to end; nothing is called from now on."""
        self._stopped.set()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, which blocks."""
        self._thread.join(seconds)

    def _run(self) -> None:
        from watchfiles import Change, watch  # noqa: PLC0415 - an extra

        # It logs every change.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)

        def concerns(change: Change, path: str) -> bool:
            if path == self._folder.path:
                return change is Change.deleted
            return change is not Change.deleted and self._folder.includes(path)

        began = False
        problem: str | None = "watchfiles has stopped"
        try:
            for changes in watch(
                self._folder.path,
                watch_filter=concerns,
                debounce=DEBOUNCE_MILLISECONDS,
                step=STEP_MILLISECONDS,
                stop_event=self._stopped,
                rust_timeout=READY_MILLISECONDS,
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                paths = frozenset(path for _, path in changes)
                if self._folder.path in paths:
                    problem = None
                    break
                if not began:
                    began = True
                    self._call(self._on_begin)
                if paths:
                    self._call(self._on_changes, paths)
        # A panic of the Rust code is no Exception.
        except BaseException as error:  # noqa: BLE001 - it is reported
            problem = str(error) or type(error).__name__
        self._call(self._on_end, problem)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        def call() -> None:
            if not self._stopped.is_set():
                function(*arguments)

        # The loop may be closed already.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)
