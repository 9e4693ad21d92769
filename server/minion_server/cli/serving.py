"""Run commands that serve until a signal: logging, the event loop, signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop
from minion_client.output import guard_output

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SWITCH_SECONDS = 0.001
"""Maximum wait of the event loop for a thread that runs Python, such as one that converts a large
message. Python's default, 5 ms, would delay every step of a request."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def configure_logging(level: str) -> None:
    """Log to the standard error stream, and drop output that cannot be written."""
    guard_output()
    logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)
    # The commands log starts and stops themselves.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_defect)


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop, through anything that the callbacks of tasks raise."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        running = loop.create_task(main)
        while True:
            try:
                return loop.run_until_complete(running)
            # A callback that exits, or one that stops the loop, which raises RuntimeError.
            except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
                if running.done() or _is_interrupt(error):
                    raise
                logger.exception("a task has tried to end the process")


def _is_interrupt(error: BaseException) -> bool:
    """Return whether it is Ctrl-C, which raises until the loop handles the signal."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(error, KeyboardInterrupt) and handler is signal.default_int_handler


def stop_event(on_repeat: Callable[[], None]) -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT or SIGHUP sets, from now on.

    An ignored SIGHUP stays ignored, as `nohup` requires.

    Args:
        on_repeat: Called at each further signal.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            on_repeat()
        stopped.set()

    for number in STOP_SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, stop)
    return stopped


async def wait_for_stop(stop: asyncio.Event, failed: Awaitable[None]) -> int:
    """Wait for an event, or until `failed` ends, and return the exit status."""
    stopped = asyncio.ensure_future(stop.wait())
    failing = asyncio.ensure_future(failed)
    await asyncio.wait([stopped, failing], return_when=asyncio.FIRST_COMPLETED)
    failing.cancel()
    # Its error is logged when the server is stopped.
    await asyncio.wait([failing])
    return 0 if stopped.done() else 1


def _is_defect(record: logging.LogRecord) -> bool:
    """Return whether a record of gRPC is about a defect here.

    It is not for metadata of a client that are not UTF-8, nor for calls that a stop cancels.
    """
    error = record.exc_info[1] if record.exc_info else None
    is_encoding = str(record.msg).startswith("Invalid encoding on")
    return not (is_encoding or isinstance(error, asyncio.CancelledError))
