"""Start processes, and wait for their end, without running Python between fork and exec.

The subprocess functions of event loops may do so, as uvloop's: a lock that another thread holds at
the fork is never released in the child, and parent and child wait forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


def spawn(
    command: Sequence[str], *, env: Mapping[str, str], fd: int, directory: str
) -> subprocess.Popen[bytes]:
    """Start a process in a new session, without standard input, that inherits `fd`."""
    return subprocess.Popen(  # noqa: S603 - not user input
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(fd,),
        env=env,
        # A removed directory must not keep the process from starting.
        cwd=directory if directory and Path(directory).is_dir() else None,
        start_new_session=True,
    )


async def exited(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process without reaping it, so that its id is not reused."""
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
        return

    def wait() -> None:
        _wait_without_reaping(process.pid)
        # The loop may have been closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait, name=f"minion-wait-{process.pid}", daemon=True).start()
    await over.wait()


def _wait_without_reaping(pid: int) -> None:
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    elif sys.platform != "linux":
        # macOS before Python 3.13. A process that is not found has ended.
        with contextlib.closing(select.kqueue()) as queue, contextlib.suppress(ProcessLookupError):
            queue.control(
                [
                    select.kevent(
                        pid,
                        filter=select.KQ_FILTER_PROC,
                        flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
                        fflags=select.KQ_NOTE_EXIT,
                    )
                ],
                1,
            )
