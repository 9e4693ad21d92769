"""What commands with verbs have in common: `minion job list`, `minion lock acquire`, ..."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grpc

from minion_server.cli.connection import Connection, add_connection_arguments, connect
from minion_server.cli.output import listed, print_message, print_warning
from minion_server.settings.values import argument, parse_natural, parse_unicode

Verb = Callable[[argparse.Namespace, Connection], int]
"""Runs one verb; returns the exit status: 1 when something asked for was not done."""

MAX_PAGE_SIZE = 1_000
EXIT_NOT_FOUND = 2
"""As of every request that is wrong."""


class VerbParser(argparse.ArgumentParser):
    """Takes positional arguments before, between and after flags: `enqueue foo -p 5 '[1]'`.

    Attributes:
        is_intermixed: False for a verb with positional arguments that look like flags.
    """

    is_intermixed = True

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments."""
        if not self.is_intermixed:
            return super().parse_known_args(args, namespace)
        # It calls this method in its turn.
        self.is_intermixed = False
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.is_intermixed = True


class AddVerb(Protocol):
    """Adds a verb to a command, and returns its parser."""

    def __call__(self, name: str, verb: Verb, text: str) -> VerbParser:
        """Add a verb."""


def add_verbs(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> AddVerb:
    """Add a command, and return a function that adds its verbs.

    Args:
        commands: Where to.
        name: Of the command.
        text: What it does, as in "list, show and change jobs".
    """
    parser = commands.add_parser(name, help=text, description=_sentence(text))
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=VerbParser)

    def add(name: str, verb: Verb, text: str) -> VerbParser:
        one = verbs.add_parser(name, help=text, description=_sentence(text))
        add_common(one, verb)
        return one

    return add


def add_common(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Add what every command that calls a server has."""
    parser.set_defaults(run=run, verb=verb)
    # Of arguments that name no reader.
    parser.register("type", None, argument(parse_unicode))
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    add_connection_arguments(parser)


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which part of a list is wanted."""
    parser.add_argument(
        "-l",
        "--limit",
        type=argument(parse_natural),
        default=100,
        metavar="N",
        help="how many; 0: all (default: 100)",
    )
    parser.add_argument(
        "-o",
        "--offset",
        type=argument(parse_natural),
        default=0,
        metavar="N",
        help="how many to pass over first",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    with connect(arguments) as connection:
        status: int = arguments.verb(arguments, connection)
        return status


def each(
    arguments: argparse.Namespace,
    names: Sequence[Any],
    call: Callable[[Any], Any],
    field: str,
    otherwise: Callable[[Any], str],
) -> int:
    """Make one call for each thing; warn of what was not done, and go on with the next.

    Args:
        arguments: Of the verb.
        names: What the calls are about.
        call: Returns the response.
        field: Of the response: whether it was done.
        otherwise: Returns why not.

    Returns:
        The exit status.
    """
    status = 0
    for name in names:
        try:
            response = call(name)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            print_warning(f"NOT_FOUND: {error.details()}")
            status = EXIT_NOT_FOUND
            continue
        is_done = getattr(response, field)
        if arguments.json:
            print_message(response)
        elif not is_done:
            print_warning(otherwise(name))
        if not is_done:
            status = max(status, 1)
    return status


def pages(call: Callable[[Any], Any], request: Any, limit: int, offset: int = 0) -> Iterator[Any]:
    """Call for as many pages as it takes; each has at least one entry, or is the only one.

    Args:
        call: Returns a response.
        request: With the filters; its paging is overwritten.
        limit: How many entries are wanted; 0: all.
        offset: How many to pass over first.
    """
    request.skip = offset
    seen = 0
    while True:
        request.page_size = min(limit - seen, MAX_PAGE_SIZE) if limit else MAX_PAGE_SIZE
        response = call(request)
        yield response
        # A page of large entries has fewer than were asked for.
        seen += len(listed(response))
        if not response.next_page_token or seen == limit:
            return
        request.page_token = response.next_page_token
        request.ClearField("skip")


def collect(call: Callable[[Any], Any], request: Any, limit: int, offset: int = 0) -> Any:
    """Return several pages as one (see `pages`)."""
    first, *others = pages(call, request, limit, offset)
    for page in others:
        listed(first).extend(listed(page))
        first.next_page_token = page.next_page_token
    return first


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
