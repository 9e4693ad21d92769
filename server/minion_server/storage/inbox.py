"""Commands as Perl Minion keeps them for workers: lists of a name and its arguments."""

from __future__ import annotations

import logging

import orjson

from minion_server.domain.errors import Invalid
from minion_server.domain.worker import Command

logger = logging.getLogger(__name__)


def read_inbox(text: str) -> list[Command]:
    """Return the commands of an inbox, given as JSON, without those that cannot be read.

    Another program may have put anything there; one bad command must not keep the worker from the
    others.
    """
    commands = []
    for entry in orjson.loads(text):
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
