"""Parsers of commands, and of their verbs: `minion job list`, `minion db copy`, ..."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from minion_server.settings.values import (
    argument,
    parse_duration,
    parse_id,
    parse_int32,
    parse_natural,
    parse_positive_duration,
)

Commands = argparse._SubParsersAction  # noqa: SLF001 - it has no public name
Run = Callable[[argparse.Namespace], int]
"""Runs a command, and returns its exit status."""
AddVerb = Callable[[str, Callable[..., Any]], "VerbParser"]
"""Adds a verb by its name and function, whose docstring is the help text; returns its parser."""


_METAVARS: Mapping[Callable[[str], Any], str] = {
    parse_id: "ID",
    parse_int32: "N",
    parse_natural: "N",
    parse_duration: "DURATION",
    parse_positive_duration: "DURATION",
}


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

    def add(
        self, names: str, text: str | None, parse: Callable[[str], Any] | None = None, **more: Any
    ) -> None:
        """Add an argument.

        Args:
            names: Its name, or its flags with a space between.
            text: Its help.
            parse: A reader of `settings.values`; by default, of any text.
            more: As of `add_argument`.
        """
        if parse is not None:
            more = {"type": argument(parse), "metavar": _METAVARS.get(parse), **more}
        self.add_argument(*names.split(), help=text, **more)


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


def add_ids(parser: VerbParser, nargs: str = "+", text: str | None = None) -> None:
    """Add an argument for several ids."""
    parser.add("ids", text, parse_id, nargs=nargs)


def add_names(parser: VerbParser, nargs: str = "+", text: str | None = None) -> None:
    """Add an argument for several names."""
    parser.add("names", text, nargs=nargs, metavar="NAME")


def add_page_arguments(parser: VerbParser) -> None:
    """Add the flags that select a part of a list."""
    parser.add("-l --limit", "how many; 0: all (default: 100)", parse_natural, default=100)
    parser.add("-o --offset", "how many to skip first", parse_natural, default=0)
