"""`minion stats`: counts of everything, and what was performed in the last 24 hours."""

from __future__ import annotations

import argparse
from datetime import datetime

from minion.v1 import minion_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.output import print_fields, print_list, print_message, show_duration
from minion_server.cli.verbs import add_common

HISTORY_COLUMNS = {
    "HOUR": lambda one: f"{datetime.fromtimestamp(one.epoch).astimezone():%Y-%m-%d %H:00}",
    "FINISHED": lambda one: one.finished_jobs,
    "FAILED": lambda one: one.failed_jobs,
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "count jobs, workers, locks and schedules"
    parser = commands.add_parser("stats", help=text, description=f"{text.capitalize()}.")
    parser.add_argument(
        "-H", "--history", action="store_true", help="jobs of each of the last 24 hours instead"
    )
    add_common(parser, show_stats)


def show_stats(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show the counts, or the history."""
    if arguments.history:
        return _show_history(arguments, connection)
    response = connection.stub.GetStats(pb.GetStatsRequest())
    if arguments.json:
        print_message(response)
        return 0
    print_fields(
        [
            (
                field.name,
                show_duration(response.uptime)
                if field.name == "uptime"
                else getattr(response, field.name),
            )
            for field in response.DESCRIPTOR.fields
        ]
    )
    return 0


def _show_history(arguments: argparse.Namespace, connection: Connection) -> int:
    response = connection.stub.GetHistory(pb.GetHistoryRequest())
    return print_list(response, HISTORY_COLUMNS, as_json=arguments.json)
