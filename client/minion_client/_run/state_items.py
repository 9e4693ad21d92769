"""Items of the state of a process: how each is read and restored."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # is in no stubs
import builtins
import decimal
import faulthandler
import gc
import locale
import logging
import os
import posix
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

_STDIO = (0, 1, 2)
_SIGNALS = sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
_MAX_DESCRIPTORS = 1_000
_CSV_FIELD_LIMIT = 131_072
"""The default of `csv.field_size_limit`."""
_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
_HOOKS = ("excepthook", "unraisablehook", "displayhook", "breakpointhook", "dont_write_bytecode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A part of the state that a job may change; `write` is None if it cannot be restored."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None


def _directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - compared and restored as text
    except FileNotFoundError:
        return ""


def _umask() -> int:
    # Reading it means setting it: to a strict value, since other threads may create files.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _environment() -> tuple[Any, Any, dict[bytes, bytes]]:
    # `posix.environ` has the variables of os.environ undecoded.
    return os.environ, os.environb, dict(posix.environ)


def _set_environment(state: tuple[Any, Any, dict[bytes, bytes]]) -> None:
    os.environ, os.environb, variables = state
    for name in posix.environ.keys() - variables.keys():
        del os.environb[name]
    for name, value in variables.items():
        if posix.environ.get(name) != value:
            os.environb[name] = value


def _handlers() -> list[Any]:
    # The C function is twenty times as fast: it makes no enum of each handler.
    return list(map(_signal.getsignal, _SIGNALS))


def _set_handlers(handlers: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        if _signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def file_identity(descriptor: int) -> tuple[int, int] | None:
    """Return a value that identifies the file of a descriptor; None if it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _descriptors() -> list[tuple[int, int] | None]:
    return [file_identity(descriptor) for descriptor in _STDIO]


def _open_descriptors() -> list[int]:
    return [descriptor for descriptor in _STDIO if file_identity(descriptor) is not None]


def _blocking() -> list[bool]:
    return [os.get_blocking(descriptor) for descriptor in _open_descriptors()]


def _set_blocking(values: list[bool]) -> None:
    for descriptor, value in zip(_open_descriptors(), values, strict=True):
        os.set_blocking(descriptor, value)


def _has_descriptors() -> bool:
    """Return whether fewer than half of the descriptors, and fewer than 1,000, are in use."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return False
    os.close(lowest)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return lowest < (_MAX_DESCRIPTORS if limit < 0 else min(limit // 2, _MAX_DESCRIPTORS))


def _has_children() -> bool:
    try:
        if hasattr(os, "waitid"):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        else:
            # macOS before Python 3.13. This reaps a child, but then this process is replaced.
            os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _streams() -> list[Any]:
    return [sys.stdin, sys.stdout, sys.stderr]


def _set_streams(streams: list[Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _stream_states() -> list[Any]:
    return [
        stream and (stream.closed, stream.encoding, stream.errors, stream.line_buffering)
        for stream in _streams()
    ]


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(number) for number in _LIMITS]


def _set_limits(limits: list[tuple[int, int]]) -> None:
    for number, limit in zip(_LIMITS, limits, strict=True):
        resource.setrlimit(number, limit)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]  # it is a list
    # Makes the module read them again.
    with warnings.catch_warnings():
        pass


def _collector() -> list[Any]:
    return [
        gc.isenabled(),
        gc.get_threshold(),
        gc.get_debug(),
        list(gc.callbacks),
        gc.get_freeze_count(),
    ]


def _set_collector(state: list[Any]) -> None:
    enabled, threshold, debug, callbacks, frozen = state
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*threshold)
    gc.set_debug(debug)
    gc.callbacks[:] = callbacks
    if gc.get_freeze_count() != frozen:
        gc.unfreeze()


def _event_loop() -> dict[str, Any] | None:
    """Return the policy's state of this thread, such as the current event loop."""
    policy = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
    kept = getattr(policy, "_local", None)
    return None if kept is None else dict(vars(kept))


def _set_event_loop(state: dict[str, Any]) -> None:
    kept = vars(sys.modules["asyncio.events"]._event_loop_policy._local)  # noqa: SLF001
    kept.clear()
    kept.update(state)


def _monitoring() -> list[str | None]:
    monitoring = getattr(sys, "monitoring", None)
    return [] if monitoring is None else [monitoring.get_tool(tool) for tool in range(6)]


def _identity() -> list[Any]:
    root = os.stat("/")  # noqa: PTH116 - only the numbers are used
    user = (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups())
    return [user, os.getpgrp(), os.getsid(0), (root.st_dev, root.st_ino)]


def _is_tracing_memory() -> bool:
    module = sys.modules.get("tracemalloc")
    return module is not None and module.is_tracing()


def _field_limit() -> int:
    module = sys.modules.get("_csv")
    return _CSV_FIELD_LIMIT if module is None else module.field_size_limit()


def _set_field_limit(limit: int) -> None:
    sys.modules["_csv"].field_size_limit(limit)


def _start_method() -> str | None:
    module = sys.modules.get("multiprocessing")
    return None if module is None else module.get_start_method(allow_none=True)


def _loaded(module: str, name: str) -> Item:
    """Return the item of an attribute, which is None while its module is not loaded."""
    return Item(
        name=f"{module}.{name}",
        read=lambda: getattr(sys.modules.get(module), name, None),
        write=lambda value: setattr(sys.modules[module], name, value),
    )


def _attribute(owner: Any, name: str) -> Item:
    return Item(
        name=f"{owner.__name__}.{name}",
        read=lambda: attrgetter(name)(owner),
        write=lambda value: setattr(owner, name, value),
    )


def _affinity() -> Iterator[Item]:
    if sys.platform == "linux":
        yield Item(
            name="CPU affinity",
            read=lambda: os.sched_getaffinity(0),
            write=lambda cpus: os.sched_setaffinity(0, cpus),
        )


DIRECTORY = Item(name="working directory", read=_directory, write=os.chdir)
UMASK = Item(name="umask", read=_umask, write=os.umask)
ITEMS: tuple[Item, ...] = (
    DIRECTORY,
    UMASK,
    Item(name="environment", read=_environment, write=_set_environment),
    Item(name="signal handlers", read=_handlers, write=_set_handlers),
    Item(
        name="signal mask",
        read=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        write=lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
    ),
    Item(name="standard streams", read=_streams, write=_set_streams),
    Item(name="a standard stream that is closed or reconfigured", read=_stream_states),
    Item(name="a standard descriptor", read=_descriptors),
    Item(name="blocking of a descriptor", read=_blocking, write=_set_blocking),
    Item(name="resource limits", read=_limits, write=_set_limits),
    # After the limits, which it depends on.
    Item(name="descriptors used up", read=_has_descriptors),
    Item(name="a program or process left behind", read=_has_children),
    Item(name="identity of the process", read=_identity),
    Item(
        name="priority",
        read=lambda: os.getpriority(os.PRIO_PROCESS, 0),
        write=lambda value: os.setpriority(os.PRIO_PROCESS, 0, value),
    ),
    *_affinity(),
    Item(
        name="locale",
        read=lambda: locale.setlocale(locale.LC_ALL),
        write=lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    # After the environment, which defines it.
    Item(
        name="time zone",
        read=lambda: (time.tzname, time.timezone),
        write=lambda _value: time.tzset(),
    ),
    # Not restored: modules still need what they add when they are imported.
    Item(name="sys.path", read=lambda: list(sys.path)),
    Item(name="sys.argv", read=lambda: list(sys.argv), write=lambda v: setattr(sys, "argv", v)),
    Item(name="warning filters", read=lambda: list(warnings.filters), write=_set_filters),
    Item(
        name="disabled logging",
        read=lambda: logging.root.manager.disable,
        write=logging.disable,
    ),
    Item(name="recursion limit", read=sys.getrecursionlimit, write=sys.setrecursionlimit),
    Item(name="switch interval", read=sys.getswitchinterval, write=sys.setswitchinterval),
    Item(
        name="digits of integers",
        read=sys.get_int_max_str_digits,
        write=sys.set_int_max_str_digits,
    ),
    *(_attribute(sys, name) for name in _HOOKS),
    Item(name="sys.tracebacklimit", read=lambda: getattr(sys, "tracebacklimit", None)),
    Item(
        name="hooks of asynchronous generators",
        read=sys.get_asyncgen_hooks,
        write=lambda hooks: sys.set_asyncgen_hooks(*hooks),
    ),
    Item(
        name="origins of coroutines",
        read=sys.get_coroutine_origin_tracking_depth,
        write=sys.set_coroutine_origin_tracking_depth,
    ),
    Item(name="sys.monitoring", read=_monitoring),
    Item(name="tracemalloc", read=_is_tracing_memory),
    # All of it: every module sees additions, too.
    Item(name="builtins", read=lambda: dict(vars(builtins))),
    _attribute(threading, "excepthook"),
    Item(name="threading.settrace", read=threading.gettrace, write=threading.settrace),
    Item(name="threading.setprofile", read=threading.getprofile, write=threading.setprofile),
    Item(name="threading.stack_size", read=threading.stack_size, write=threading.stack_size),
    _attribute(logging, "raiseExceptions"),
    Item(name="garbage collection", read=_collector, write=_set_collector),
    Item(
        name="socket timeout",
        read=socket.getdefaulttimeout,
        write=socket.setdefaulttimeout,
    ),
    _loaded("tempfile", "tempdir"),
    _loaded("urllib.request", "_opener"),
    Item(
        name="csv.field_size_limit",
        read=_field_limit,
        write=_set_field_limit,
    ),
    Item(
        name="start method of multiprocessing",
        read=_start_method,
        write=lambda value: sys.modules["multiprocessing"].set_start_method(value, force=True),
    ),
    _loaded("asyncio.events", "_event_loop_policy"),
    # After the policy, which holds it.
    Item(name="event loop", read=_event_loop, write=_set_event_loop),
    Item(name="decimal's default", read=lambda: repr(decimal.DefaultContext)),
    Item(
        name="faulthandler",
        read=faulthandler.is_enabled,
        write=lambda enabled: faulthandler.enable() if enabled else faulthandler.disable(),
    ),
)
