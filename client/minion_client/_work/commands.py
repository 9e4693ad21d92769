"""Commands that clients broadcast to workers."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import reprlib
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

from minion_wire.json_value import JsonValue

from minion_client._work.waiting import endless
from minion_client.backoff import Backoff
from minion_client.source import Command, JobSource

_log = logging.getLogger(__name__)

CommandHandler = Callable[..., Awaitable[None] | None]
"""Called with the arguments of a command, on the worker's event loop."""

MAX_SLOTS = 10_000
"""Maximum number of slots that a command can set."""
_SIGNALS = {
    number.name.removeprefix("SIG"): number
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGUSR2)
}


class Commanded(Protocol):
    """The methods of a worker that commands call."""

    def resize(self, *, jobs: int | None = None, spare: int | None = None) -> None: ...
    def signal_job(self, job_id: int, number: signal.Signals) -> None: ...


class Commander:
    """Receives commands from a source and carries them out; calls `carried_out` after each."""

    def __init__(
        self,
        worker: Commanded,
        source: JobSource,
        *,
        backoff: Backoff,
        carried_out: Callable[[], None],
    ) -> None:
        self._source = source
        self._backoff = backoff
        self._carried_out = carried_out
        self._handlers: dict[str, CommandHandler] = {
            "jobs": lambda count: worker.resize(jobs=_count(count)),
            "spare": lambda count: worker.resize(spare=_count(count)),
            "kill": lambda name, job_id: worker.signal_job(_whole(job_id), _signal(name)),
            "stop": lambda job_id: worker.signal_job(_whole(job_id), signal.SIGKILL),
        }
        self._own = frozenset(self._handlers)

    def add(self, name: str, handler: CommandHandler) -> None:
        """Add a command, or replace one that was added (see `Worker.add_command`)."""
        if name in self._own:
            raise ValueError(f"name: expected none of the built-in commands, got {name!r}")
        self._handlers[name] = handler

    async def run(self) -> None:
        """Carry out commands one at a time."""
        commands = endless(self._source.commanded, "receive commands", self._backoff)
        async for command in commands:
            await self._carry_out(command)

    async def _carry_out(self, command: Command) -> None:
        handler = self._handlers.get(command.command)
        if handler is None:
            _log.warning("Ignored the unknown command %r", command.command)
            return
        shown = reprlib.repr([*command.args])
        try:
            result = handler(*command.args)
            if inspect.isawaitable(result):
                await result
        except (TypeError, ValueError) as error:
            _log.warning("Ignored %r with %s: %s", command.command, shown, error)
        # SystemExit too: the worker continues after any error of a handler.
        except BaseException as error:
            running = asyncio.current_task()
            if running is not None and running.cancelling():
                raise
            _log.exception("The command %r failed", command.command, exc_info=error)
        else:
            _log.info("Carried out %r with %s", command.command, shown)
            self._carried_out()


def _count(value: JsonValue) -> int:
    number = _whole(value)
    if number > MAX_SLOTS:
        raise ValueError(f"expected at most {MAX_SLOTS} slots, got {number}")
    return number


def _signal(value: JsonValue) -> signal.Signals:
    if value not in _SIGNALS:
        raise ValueError(f"expected one of {', '.join(_SIGNALS)}, got {value!r}")
    return _SIGNALS[value]


def _whole(value: JsonValue) -> int:
    """Return a whole number, from an integer or a string."""
    if re.fullmatch("[0-9]{1,19}", str(value)) is None or isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {value!r}")
    return int(value)
