"""Starts processes, and waits for their end, without running Python between fork and exec.

Event loops may fork: uvloop does, and runs Python in the child before it execs. A lock that another
thread held at that moment is never released there, and parent and child wait for ever.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence


def spawn(command: Sequence[str], *, env: Mapping[str, str], fd: int) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, without standard input.

    Args:
        command: The program and its arguments.
        env: Its whole environment.
        fd: A descriptor that it inherits.

    Raises:
        OSError: It cannot be started.
    """
    return subprocess.Popen(  # noqa: S603 - not user input
        command, stdin=subprocess.DEVNULL, pass_fds=(fd,), env=env, start_new_session=True
    )


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process, and answer its return code."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(process.pid)
        loop.add_reader(descriptor, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return process.wait()

    def wait() -> None:
        process.wait()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait, name=f"minion-wait-{process.pid}", daemon=True).start()
    await over.wait()
    return process.wait()
