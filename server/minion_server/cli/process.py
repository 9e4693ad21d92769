"""Repair what a process inherits: closed streams, blocked and ignored signals."""

from __future__ import annotations

import os
import signal
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare_process() -> None:
    """Open closed standard streams, and unblock signals."""
    for fd, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            # The next file or socket would have its number, and the output.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - os's
        if getattr(sys, name) is None:
            stream = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - sys's
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Ignored, it would discard the exit status of child processes.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
