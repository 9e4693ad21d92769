"""Parsers of commands, and of their verbs: `minion job list`, `minion db copy`, ..."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from minion_server.settings.values import argument, parse_id, parse_natural

Commands = argparse._SubParsersAction  # noqa: SLF001 - it has no public name
Run = Callable[[argparse.Namespace], int]
"""Runs a command, and returns its exit status."""
AddVerb = Callable[[str, Callable[..., Any]], "VerbParser"]
"""Adds a verb by its name and function, whose docstring is the help text; returns its parser."""


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
        # parse_known_intermixed_args calls this method.
        self.is_intermixed = False
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.is_intermixed = True


def add_command(
    commands: Commands[Any], name: str, run: Run | None, text: str, more: str = ""
) -> Any:
    """Add a command, and return its parser.

    Args:
        commands: Where to add it.
        name: Its name.
        run: Runs it; None if its verbs do.
        text: What it does, as in "list, show and change jobs".
        more: Sentences that its own help adds.
    """
    description = f"{text[0].upper()}{text[1:]}. {more}".rstrip()
    parser = commands.add_parser(name, help=text, description=description)
    parser.set_defaults(run=run)
    return parser


def add_verbs(
    commands: Commands[Any],
    name: str,
    run: Run,
    text: str,
    add_common: Callable[[VerbParser], None],
) -> AddVerb:
    """Add a command with verbs, and return a function that adds a verb.

    Args:
        commands: Where to add it.
        name: Its name.
        run: Runs `arguments.verb`.
        text: As of `add_command`.
        add_common: Adds the flags that all verbs have.
    """
    parser = add_command(commands, name, None, text)
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=VerbParser)

    def add(name: str, verb: Callable[..., Any]) -> VerbParser:
        text = (verb.__doc__ or name).rstrip(".")
        one: VerbParser = add_command(verbs, name, run, text[0].lower() + text[1:])
        one.set_defaults(verb=verb)
        add_common(one)
        return one

    return add


def add_id(parser: argparse.ArgumentParser, text: str | None = None) -> None:
    """Add an argument for one id."""
    parser.add_argument("id", type=argument(parse_id), metavar="ID", help=text)


def add_ids(parser: argparse.ArgumentParser, nargs: str = "+", text: str | None = None) -> None:
    """Add an argument for several ids."""
    parser.add_argument("ids", nargs=nargs, type=argument(parse_id), metavar="ID", help=text)


def add_names(parser: argparse.ArgumentParser, nargs: str = "+", text: str | None = None) -> None:
    """Add an argument for several names."""
    parser.add_argument("names", nargs=nargs, metavar="NAME", help=text)


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select a part of a list."""
    number = argument(parse_natural)
    parser.add_argument(
        *("-l", "--limit"),
        type=number,
        default=100,
        metavar="N",
        help="how many; 0: all (default: 100)",
    )
    parser.add_argument(
        "-o", "--offset", type=number, default=0, metavar="N", help="how many to skip first"
    )
