"""Show the progress of a job on a line of the terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from minion.v1 import job_pb2

from minion_server.cli.connection import background
from minion_server.cli.output import show_json

INTERVAL: Final = 0.25
BAR_WIDTH: Final = 20
FULL: Final = 100.0
_CLEAR: Final = "\r\x1b[K"


@contextmanager
def progress_line() -> Iterator[Callable[[job_pb2.Job], None]]:
    """Yield a function that shows a job from then on, with the time since the start of the block.

    Nothing is written if the standard error stream is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda _job: None
        return
    started = time.monotonic()
    text = ""

    def show(job: job_pb2.Job) -> None:
        nonlocal text
        text = describe(job)

    def draw() -> bool:
        line = f"{time.monotonic() - started:6.1f}s  {text}"
        sys.stderr.write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])
        sys.stderr.flush()
        return True

    try:
        with background(draw, INTERVAL):
            yield show
    finally:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()


def describe(job: job_pb2.Job) -> str:
    """Return a job as a line: its state, and a bar if its note `progress` is a percentage."""
    text = f"job {job.id} ({job.task})  {job.state}"
    fields = job.notes.fields
    if "progress" in fields and fields["progress"].HasField("number_value"):
        percent = min(max(fields["progress"].number_value, 0.0), FULL)
        done = round(BAR_WIDTH * percent / FULL)
        return f"{text}  [{'#' * done}{'.' * (BAR_WIDTH - done)}] {percent:.0f}%"
    return f"{text}  {show_json(job.notes)}" if fields else text
