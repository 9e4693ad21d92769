"""The arguments of jobs: of `minion job` for one job, of `minion schedule` for those of a rule."""

from __future__ import annotations

import argparse

from minion_server.cli.json_arguments import parse_array, parse_object
from minion_server.settings.values import argument, parse_duration, parse_int32


def add_content_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the task, its arguments and the notes."""
    array, notes = argument(parse_array), argument(parse_object)
    parser.add_argument("task", help="name of the task")
    parser.add_argument(
        "args", nargs="?", type=array, help="arguments, as a JSON array (default: none)"
    )
    parser.add_argument("-n", "--notes", type=notes, help="metadata, as a JSON object")


def add_job_options(parser: argparse.ArgumentParser, *, queue: str = "default") -> None:
    """Add the flags that say where, when and how often a job runs; `queue` is the default one."""
    number, duration = argument(parse_int32), argument(parse_duration)
    parser.add_argument("-q", "--queue", help=f"name of the queue (default: {queue})")
    parser.add_argument("-p", "--priority", type=number, metavar="N", help="higher runs first")
    parser.add_argument(
        "-A", "--attempts", type=number, metavar="N", help="how often the job may run"
    )
    parser.add_argument(
        "-E",
        "--expire",
        type=duration,
        metavar="DURATION",
        help="how long the job may wait: 10s, 5m, 2h, 1d",
    )
    parser.add_argument(
        "-x",
        "--lax",
        action=argparse.BooleanOptionalAction,
        help="let the job run after failed parents too",
    )
