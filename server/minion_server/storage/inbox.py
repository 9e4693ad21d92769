"""Commands in the inboxes of workers, as lists of a name and arguments, as in Perl Minion."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from minion_server.domain.errors import Invalid
from minion_server.domain.job import JsonValue
from minion_server.domain.worker import Command

logger = logging.getLogger(__name__)


def to_entry(command: Command) -> JsonValue:
    """Return a command as the entry of an inbox."""
    return [command.command, *command.args]


def read_inbox(entries: Iterable[JsonValue]) -> list[Command]:
    """Return the commands of an inbox; unreadable ones are logged and dropped.

    Another program may have stored any value, which must not keep the worker from other commands.
    """
    commands = []
    for entry in entries:
        match entry:
            case [str(name), *args]:
                try:
                    commands.append(Command(command=name, args=args))
                    continue
                except Invalid as error:
                    reason = str(error)
            case _:
                reason = "expected a list that begins with a name"
        logger.warning("cannot read a command for a worker, which is dropped: %s", reason)
    return commands
