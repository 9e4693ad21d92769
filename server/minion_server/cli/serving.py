"""What commands that serve until they are told to stop have in common."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def configure_logging(level: str) -> None:
    """Send the log to the standard error stream."""
    logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)
    # uvicorn tells of each start and stop, which the commands do themselves.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # gRPC tells of metadata that is not UTF-8 with a traceback, whoever sends it.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_fault_of_a_client)


SWITCH_SECONDS = 0.001
"""How long the event loop waits at most while a thread, such as one that converts a large message,
runs Python. Python's own 5 ms are paid for every step of a request."""


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on the fast event loop."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def heed_signals(hurry: Callable[[], None]) -> asyncio.Event:
    """Answer an event that SIGTERM or SIGINT sets, from now on.

    Args:
        hurry: Called at each further signal.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def heed() -> None:
        if told.is_set():
            hurry()
        told.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, heed)
    return told


def _is_no_fault_of_a_client(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding on")
