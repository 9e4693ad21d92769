"""`minion stats`: counts of everything, and the jobs of the last 24 hours."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from minion.v1 import minion_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.output import fields, print_list, print_record
from minion_server.cli.parsers import Commands, add_command
from minion_server.cli.verbs import add_common, run

HISTORY_COLUMNS = {
    "hour": lambda one: f"{datetime.fromtimestamp(one.epoch).astimezone():%Y-%m-%d %H:00}",
    "finished": lambda one: one.finished_jobs,
    "failed": lambda one: one.failed_jobs,
}


def add_parser(commands: Commands[Any]) -> None:
    """Add the command."""
    parser = add_command(commands, "stats", run, "count jobs, workers, locks and schedules")
    parser.set_defaults(verb=show_stats)
    parser.add_argument(
        "-H", "--history", action="store_true", help="jobs of each of the last 24 hours instead"
    )
    add_common(parser)


def show_stats(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show the counts, or the history."""
    if arguments.history:
        history = connection.stub.GetHistory(pb.GetHistoryRequest())
        return print_list(history, HISTORY_COLUMNS, as_json=arguments.json)
    stats = connection.stub.GetStats(pb.GetStatsRequest())
    names = stats.DESCRIPTOR.fields_by_name
    print_record(stats, fields(*names), as_json=arguments.json)
    return 0
