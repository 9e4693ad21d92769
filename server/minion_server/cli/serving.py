"""What commands that serve until they are stopped to stop have in common."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from minion_client.output import guard_output

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def configure_logging(level: str) -> None:
    """Send the log to the standard error stream; what cannot be written is lost."""
    guard_output()
    logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)
    # The commands report starts and stops themselves.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_defect)


SWITCH_SECONDS = 0.001
"""How long the event loop waits at most while a thread, such as one that converts a large message,
runs Python. Python's own 5 ms are paid for every step of a request."""


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on the fast event loop, whatever callbacks of tasks raise in it."""
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
    """Return whether it is Ctrl-C: only before the loop handles the signal does it raise."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(error, KeyboardInterrupt) and handler is signal.default_int_handler


def stop_event(on_repeat: Callable[[], None]) -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT or SIGHUP sets, from now on.

    SIGHUP is left alone where it is ignored, as `nohup` has it.

    Args:
        on_repeat: Called at each further signal.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def heed() -> None:
        if stopped.is_set():
            on_repeat()
        stopped.set()

    for number in STOP_SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, heed)
    return stopped


def _is_defect(record: logging.LogRecord) -> bool:
    """Return False for what gRPC logs with a traceback though nothing has failed here.

    These are a client's metadata that are not UTF-8, and calls that are cancelled by a stop.
    """
    error = record.exc_info[1] if record.exc_info else None
    is_encoding = str(record.msg).startswith("Invalid encoding on")
    return not (is_encoding or isinstance(error, asyncio.CancelledError))
