"""Puts right what a program may inherit from whatever started it."""

from __future__ import annotations

import os
import signal
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare_process() -> None:
    """Open standard streams that are closed, and let signals through that are blocked."""
    for fd, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            # Its number would go to the next file or socket, which prints would then end up in.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - os's
        if getattr(sys, name) is None:
            stream = open(fd, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - sys's
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # It would keep the exit status of every process that is started here from this one.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
