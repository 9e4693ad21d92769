"""Shows people who wait what they wait for, on a line that is rewritten."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import Final, Self

from minion.v1 import job_pb2

from minion_server.cli.output import show_json

INTERVAL: Final = 0.25
BAR_WIDTH: Final = 20
FULL: Final = 100.0
_CLEAR: Final = "\r\x1b[K"


class Progress:
    """A line on the terminal: a job's state, how long it has been waited for, and its progress.

    Nothing is written if the standard error stream is no terminal.
    """

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._started = time.monotonic()
        self._text = ""
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self._is_shown:
            self._ticker.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ended.set()
        if self._is_shown:
            self._ticker.join()
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def show(self, job: job_pb2.Job) -> None:
        """Show a job from now on."""
        self._text = describe(job)

    def _tick(self) -> None:
        while not self._ended.is_set():
            waited = time.monotonic() - self._started
            line = f"{waited:6.1f}s  {self._text}"
            sys.stderr.write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])
            sys.stderr.flush()
            self._ended.wait(INTERVAL)


def describe(job: job_pb2.Job) -> str:
    """Describe a job in a line: its state, and a bar if its note `progress` is a percentage."""
    text = f"job {job.id} ({job.task})  {job.state}"
    fields = job.notes.fields
    if "progress" in fields and fields["progress"].HasField("number_value"):
        percent = min(max(fields["progress"].number_value, 0.0), FULL)
        done = round(BAR_WIDTH * percent / FULL)
        return f"{text}  [{'#' * done}{'.' * (BAR_WIDTH - done)}] {percent:.0f}%"
    return f"{text}  {show_json(job.notes)}" if fields else text
