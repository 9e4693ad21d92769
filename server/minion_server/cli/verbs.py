"""Verbs that call a server: their common flags, and how they call and report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from minion_server.cli import parsers
from minion_server.cli.connection import Connection, connect
from minion_server.cli.output import Cells, listed, print_list, print_message, print_warning
from minion_server.cli.parsers import AddVerb, Commands
from minion_server.settings.options import CONNECTION_OPTIONS
from minion_server.settings.sources import add_arguments
from minion_server.settings.values import argument, parse_unicode

Verb = Callable[[argparse.Namespace, Connection], int]
"""Runs one verb; returns the exit status: 1 if something that was asked for was not done."""

MAX_PAGE_SIZE = 1_000
EXIT_NOT_FOUND = 2
"""The status of every invalid request."""


def add_verbs(commands: Commands[Any], name: str, text: str) -> AddVerb:
    """Add a command whose verbs call a server, and return a function that adds a verb."""
    return parsers.add_verbs(commands, name, run, text, add_common)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every command that calls a server."""
    # For arguments without a type.
    parser.register("type", None, argument(parse_unicode))
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    add_arguments(parser, CONNECTION_OPTIONS)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    with connect(arguments) as connection:
        status: int = arguments.verb(arguments, connection)
        return status


def make_request(kind: Callable[..., Any], arguments: argparse.Namespace, **fields: Any) -> Any:
    """Return a request of a kind, with the arguments that are named as its fields, and `fields`."""
    names = kind.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]  # a class of messages
    given = {name: value for name, value in vars(arguments).items() if name in names}
    return kind(**{**given, **fields})


def report(arguments: argparse.Namespace, response: Any, field: str, refusal: str) -> int:
    """Print a response as JSON, or warn of a refusal, and return the exit status.

    Args:
        arguments: Of the verb.
        response: What the server returned.
        field: The field that says whether the request was carried out.
        refusal: The warning if it was not.
    """
    is_done = getattr(response, field)
    if arguments.json:
        print_message(response)
    elif not is_done:
        print_warning(refusal)
    return 0 if is_done else 1


def report_id(arguments: argparse.Namespace, response: Any) -> int:
    """Print the id in a response, or the response as JSON, and return the exit status, 0."""
    if arguments.json:
        print_message(response)
    else:
        print(response.id)
    return 0


def each(
    arguments: argparse.Namespace,
    names: Sequence[Any],
    call: Callable[[Any], Any],
    field: str,
    refusal: Callable[[Any], str],
) -> int:
    """Make a call for each name and report it; continue after refusals and names not found.

    Args:
        arguments: Of the verb.
        names: What the calls are about.
        call: Returns the response.
        field: As of `report`.
        refusal: Returns that of `report`.

    Returns:
        The exit status.
    """
    status = 0
    for name in names:
        try:
            status = max(status, report(arguments, call(name), field, refusal(name)))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            print_warning(f"NOT_FOUND: {error.details()}")
            status = EXIT_NOT_FOUND
    return status


def pages(call: Callable[[Any], Any], request: Any, limit: int, offset: int = 0) -> Iterator[Any]:
    """Yield as many pages as it takes; each has at least one entry, or is the only one.

    Args:
        call: Returns a response.
        request: With the filters; its paging is overwritten.
        limit: Maximum number of entries; 0: all.
        offset: How many to skip first.
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
    """Return several pages as one; see `pages`."""
    first, *others = pages(call, request, limit, offset)
    for page in others:
        listed(first).extend(listed(page))
        first.next_page_token = page.next_page_token
    return first


def print_pages(
    arguments: argparse.Namespace, call: Callable[[Any], Any], request: Any, columns: Cells
) -> int:
    """Print the part of a list that `add_page_arguments` selects; return the exit status, 0."""
    response = collect(call, request, arguments.limit, arguments.offset)
    return print_list(response, columns, as_json=arguments.json)
