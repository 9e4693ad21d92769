"""The event loop of the commands that serve: no callback ends it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

import pytest
from minion_server.cli.serving import run_loop, stop_event


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "callback",
    [lambda: sys.exit(3), interrupt, lambda: asyncio.get_running_loop().stop()],
    ids=["exits", "interrupts", "stops"],
)
def test_a_callback_does_not_end_the_loop(callback: Callable[[], None]) -> None:
    async def main() -> int:
        stop_event(lambda: None)
        loop = asyncio.get_running_loop()
        loop.call_soon(callback)
        later = asyncio.Event()
        loop.call_later(0, loop.call_soon, later.set)
        await later.wait()
        return 7

    assert run_loop(main()) == 7


def test_the_main_coroutine_may_exit() -> None:
    async def main() -> int:
        sys.exit(3)

    with pytest.raises(SystemExit):
        run_loop(main())


def test_a_signal_stops_the_loop_after_a_callback_that_exits() -> None:
    async def main() -> int:
        stopped = stop_event(lambda: None)
        loop = asyncio.get_running_loop()
        loop.call_soon(sys.exit, 3)
        loop.call_soon(signal.raise_signal, signal.SIGTERM)
        await stopped.wait()
        return 7

    assert run_loop(main()) == 7
