"""The arguments of jobs: of `minion job` for one job, of `minion schedule` for those of a rule."""

from __future__ import annotations

import argparse

from minion_server.cli.json_arguments import parse_array, parse_object
from minion_server.cli.parsers import VerbParser
from minion_server.settings.values import parse_duration, parse_int32


def add_content_arguments(parser: VerbParser) -> None:
    """Add the task, its arguments and the notes."""
    parser.add("task", "name of the task")
    parser.add("args", "arguments, as a JSON array (default: none)", parse_array, nargs="?")
    parser.add("-n --notes", "metadata, as a JSON object", parse_object)


def add_job_options(parser: VerbParser, *, queue: str = "default") -> None:
    """Add the flags that say where, when and how often a job runs; `queue` is the default one."""
    parser.add("-q --queue", f"name of the queue (default: {queue})")
    parser.add("-p --priority", "higher runs first", parse_int32)
    parser.add("-A --attempts", "how often the job may run", parse_int32)
    parser.add("-E --expire", "how long the job may wait: 10s, 5m, 2h, 1d", parse_duration)
    text = "let the job run after failed parents too"
    parser.add("-x --lax", text, action=argparse.BooleanOptionalAction)
