"""The state of a process that jobs share, restored after each of them."""

from __future__ import annotations

import atexit
import contextlib
import decimal
import faulthandler
import gc
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from types import BuiltinFunctionType, FunctionType
from typing import Any

_STDIO = (0, 1, 2)
# Without the real-time ones, which cost as much as all others together.
_SIGNALS = sorted(
    number for number in signal.Signals if number not in (signal.SIGKILL, signal.SIGSTOP)
)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
_HOOKS = ("excepthook", "unraisablehook", "displayhook", "breakpointhook", "dont_write_bytecode")
_CODE = (FunctionType, BuiltinFunctionType, type)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One thing that a job may change; `write` is None if it cannot be set back."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None


class ProcessState:
    """The state of the process when this is made."""

    def __init__(self) -> None:
        self._items = [(item, item.read()) for item in _ITEMS]
        self._loggers = [(logger, _logger_state(logger)) for logger in _loggers()]
        self._threads = set(threading.enumerate())
        self._modules = dict(sys.modules)
        self._code = [_Code(module) for name, module in self._modules.items() if _is_stdlib(name)]
        self._decimal = decimal.getcontext().copy()
        self._exit_handlers = _count_exit_handlers()
        self._module_count = len(sys.modules)

    def restore(self) -> str:
        """Undo what a job changed; return what cannot be undone, or "".

        To be called in the main thread.
        """
        # First, what runs at every line or at any moment.
        sys.settrace(None)
        sys.setprofile(None)
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(Exception):
            faulthandler.cancel_dump_traceback_later()
        try:
            return ", ".join(self._restore_all())
        # What a job has put in the place of something may raise anything.
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__} while restoring"

    def _restore_all(self) -> Iterator[str]:
        for item, value in self._items:
            if not _restored(item, value):
                yield item.name
        for logger, state in self._loggers:
            if _logger_state(logger) != state:
                _restore_logger(logger, state)
        decimal.setcontext(self._decimal.copy())
        # A number: by itself it reads far more random bytes than matter here.
        random.seed(int.from_bytes(os.urandom(16)))
        if set(threading.enumerate()) - self._threads:
            yield "a thread left running"
        if any(sys.modules.get(name) is not module for name, module in self._modules.items()):
            yield "sys.modules"
        if not all(code.is_unchanged() for code in self._code):
            yield "the standard library"
        if self._has_new_exit_handlers():
            yield "exit handlers"

    def _has_new_exit_handlers(self) -> bool:
        before, self._exit_handlers = self._exit_handlers, _count_exit_handlers()
        modules, self._module_count = self._module_count, len(sys.modules)
        # Many modules register one when they are imported, once for all jobs.
        return self._exit_handlers != before and self._module_count == modules


class SharedState:
    """The state that jobs share with a worker in whose process they run.

    The rest, such as the environment and signal handlers, may be changed by the worker too, and
    stays as a task leaves it.
    """

    def __init__(self) -> None:
        self._items = [(item, item.read()) for item in (_DIRECTORY, _UMASK)]

    def restore(self) -> list[str]:
        """Undo what a job changed, and return the names of that."""
        changed = [(item, value) for item, value in self._items if item.read() != value]
        for item, value in changed:
            _restored(item, value)
        return [item.name for item, _ in changed]


class _Code:
    """The functions and classes of a module, which a job may have replaced by its own."""

    def __init__(self, module: Any) -> None:
        self._vars = vars(module)
        names = [name for name, value in self._vars.items() if type(value) in _CODE]
        # All at once, for there are thousands. The first one twice: one alone would make no tuple.
        self._find = itemgetter(*names, *names[:1]) if names else None
        self._values = self._find(self._vars) if self._find is not None else None

    def is_unchanged(self) -> bool:
        if self._find is None:
            return True
        try:
            return bool(self._find(self._vars) == self._values)
        except KeyError:
            return False


def _restored(item: _Item, value: Any) -> bool:
    try:
        if item.read() == value:
            return True
        if item.write is None:
            return False
        item.write(value)
        return bool(item.read() == value)
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError):
        return False


def _is_stdlib(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def _directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - compared and given back as it is
    except FileNotFoundError:
        return ""


def _umask() -> int:
    # There is no other way to read it; others must not create files with fewer bits meanwhile.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_environment(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in _SIGNALS]


def _set_handlers(handlers: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, handlers, strict=True):
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _descriptors() -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for descriptor in _STDIO:
        try:
            status = os.fstat(descriptor)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def _blocking() -> list[bool]:
    return [os.get_blocking(descriptor) for descriptor in _STDIO if _is_open(descriptor)]


def _set_blocking(values: list[bool]) -> None:
    opened = [descriptor for descriptor in _STDIO if _is_open(descriptor)]
    for descriptor, value in zip(opened, values, strict=True):
        os.set_blocking(descriptor, value)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _spare_descriptor() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _streams() -> list[Any]:
    return [sys.stdin, sys.stdout, sys.stderr]


def _set_streams(streams: list[Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _open_streams() -> list[bool]:
    return [stream is not None and not stream.closed for stream in _streams()]


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(number) for number in _LIMITS]


def _set_limits(limits: list[tuple[int, int]]) -> None:
    for number, limit in zip(_LIMITS, limits, strict=True):
        resource.setrlimit(number, limit)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]  # it is a list
    # Makes the module look at them again.
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


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(one for one in known if isinstance(one, logging.Logger))]


def _logger_state(logger: logging.Logger) -> tuple[Any, ...]:
    handlers, filters = list(logger.handlers), list(logger.filters)
    return logger.level, logger.propagate, logger.disabled, handlers, filters


def _restore_logger(logger: logging.Logger, state: tuple[Any, ...]) -> None:
    level, logger.propagate, logger.disabled, logger.handlers[:], logger.filters[:] = state
    logger.setLevel(level)


def _count_exit_handlers() -> int:
    count: Callable[[], int] | None = getattr(atexit, "_ncallbacks", None)
    return count() if count is not None else 0


def _temporary_directory() -> Any:
    return getattr(sys.modules.get("tempfile"), "tempdir", None)


def _set_temporary_directory(directory: Any) -> None:
    sys.modules["tempfile"].tempdir = directory  # type: ignore[attr-defined]  # as its docs say


def _identity() -> list[Any]:
    root = os.stat("/")  # noqa: PTH116 - the numbers alone count
    user = (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups())
    return [user, os.getpgrp(), os.getsid(0), (root.st_dev, root.st_ino)]


def _attribute(owner: Any, name: str) -> _Item:
    return _Item(
        name=f"{owner.__name__}.{name}",
        read=lambda: attrgetter(name)(owner),
        write=lambda value: setattr(owner, name, value),
    )


def _affinity() -> Iterator[_Item]:
    if sys.platform == "linux":
        yield _Item(
            name="CPU affinity",
            read=lambda: os.sched_getaffinity(0),
            write=lambda cpus: os.sched_setaffinity(0, cpus),
        )


_DIRECTORY = _Item(name="working directory", read=_directory, write=os.chdir)
_UMASK = _Item(name="umask", read=_umask, write=os.umask)
_ITEMS: tuple[_Item, ...] = (
    _DIRECTORY,
    _UMASK,
    _Item(name="environment", read=lambda: dict(os.environ), write=_set_environment),
    _Item(name="signal handlers", read=_handlers, write=_set_handlers),
    _Item(
        name="signal mask",
        read=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        write=lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
    ),
    _Item(name="standard streams", read=_streams, write=_set_streams),
    _Item(name="a standard stream that is closed", read=_open_streams),
    _Item(name="a standard descriptor", read=_descriptors),
    _Item(name="blocking of a descriptor", read=_blocking, write=_set_blocking),
    _Item(name="resource limits", read=_limits, write=_set_limits),
    _Item(name="descriptors used up", read=_spare_descriptor),
    _Item(name="identity of the process", read=_identity),
    _Item(
        name="priority",
        read=lambda: os.getpriority(os.PRIO_PROCESS, 0),
        write=lambda value: os.setpriority(os.PRIO_PROCESS, 0, value),
    ),
    *_affinity(),
    _Item(
        name="locale",
        read=lambda: locale.setlocale(locale.LC_ALL),
        write=lambda value: locale.setlocale(locale.LC_ALL, value),
    ),
    # After the environment, which names it.
    _Item(
        name="time zone",
        read=lambda: (time.tzname, time.timezone),
        write=lambda _value: time.tzset(),
    ),
    # What a module changes when it is imported stays needed by it: these are not set back.
    _Item(name="sys.path", read=lambda: list(sys.path)),
    _Item(name="sys.argv", read=lambda: list(sys.argv), write=lambda v: setattr(sys, "argv", v)),
    _Item(name="warning filters", read=lambda: list(warnings.filters), write=_set_filters),
    _Item(
        name="disabled logging",
        read=lambda: logging.root.manager.disable,
        write=logging.disable,
    ),
    _Item(name="recursion limit", read=sys.getrecursionlimit, write=sys.setrecursionlimit),
    _Item(name="switch interval", read=sys.getswitchinterval, write=sys.setswitchinterval),
    _Item(
        name="digits of integers",
        read=sys.get_int_max_str_digits,
        write=sys.set_int_max_str_digits,
    ),
    *(_attribute(sys, name) for name in _HOOKS),
    _attribute(threading, "excepthook"),
    _Item(name="garbage collection", read=_collector, write=_set_collector),
    _Item(
        name="socket timeout",
        read=socket.getdefaulttimeout,
        write=socket.setdefaulttimeout,
    ),
    _Item(name="temporary directory", read=_temporary_directory, write=_set_temporary_directory),
    _Item(name="decimal's default", read=lambda: repr(decimal.DefaultContext)),
    _Item(
        name="faulthandler",
        read=faulthandler.is_enabled,
        write=lambda enabled: faulthandler.enable() if enabled else faulthandler.disable(),
    ),
)
