"""`minion job`: list, show, enqueue, change and follow jobs."""

from __future__ import annotations

import argparse
from typing import Any

from minion_server.cli.job.changing import (
    cancel_jobs,
    enqueue_job,
    note_job,
    remove_jobs,
    retry_jobs,
)
from minion_server.cli.job.finding import STATES, explain_jobs, list_jobs, show_jobs
from minion_server.cli.job.following import wait_for_jobs, watch_job
from minion_server.cli.job.foreground import RUN_OPTIONS, run_job
from minion_server.cli.job_arguments import add_content_arguments, add_job_options
from minion_server.cli.json_arguments import parse_object
from minion_server.cli.parsers import AddVerb, Commands, add_id, add_ids, add_page_arguments
from minion_server.cli.verbs import add_verbs
from minion_server.settings.sources import add_option
from minion_server.settings.values import argument, parse_duration, parse_id


def add_parser(commands: Commands[Any]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "job", "list, show, enqueue, change and follow jobs")
    _add_finding(add)
    _add_changing(add)
    _add_following(add)


def _add_finding(add: AddVerb) -> None:
    listing = add("list", list_jobs)
    for letter, name, text in (
        ("-q", "queue", "only jobs of this queue; repeatable"),
        ("-t", "task", "only jobs of this task; repeatable"),
        ("-n", "note", "only jobs with this note; repeatable"),
    ):
        listing.add_argument(
            *(letter, f"--{name}"),
            dest=f"{name}s",
            metavar=name.upper(),
            action="append",
            default=[],
            help=text,
        )
    listing.add_argument(
        *("-S", "--state"),
        dest="states",
        action="append",
        default=[],
        choices=STATES,
        help="only jobs in this state; repeatable",
    )
    listing.add_argument(
        "--before", type=argument(parse_id), metavar="ID", help="only jobs before this one"
    )
    add_page_arguments(listing)

    add_ids(add("show", show_jobs))
    add_ids(add("explain", explain_jobs))


def _add_changing(add: AddVerb) -> None:
    enqueueing = add("enqueue", enqueue_job)
    add_content_arguments(enqueueing)
    enqueueing.add_argument("--request-id", help="enqueue once, however often this is repeated")
    enqueueing.add_argument("--wait", action="store_true", help="wait for it, as `job wait` does")
    _add_options(enqueueing)

    retrying = add("retry", retry_jobs)
    _add_ids_or_failed(retrying)
    _add_options(retrying, queue="its own")
    retrying.add_argument(
        "--no-parents", dest="clear_parents", action="store_true", help="let it wait for no job"
    )

    cancelling = add("cancel", cancel_jobs)
    add_ids(cancelling)
    cancelling.add_argument("--reason", help="why, for the job's result")

    _add_ids_or_failed(add("remove", remove_jobs))

    noting = add("note", note_job)
    add_id(noting)
    noting.add_argument(
        "notes", type=argument(parse_object), help="what to merge, as a JSON object"
    )


def _add_following(add: AddVerb) -> None:
    add_id(add("watch", watch_job))

    waiting = add("wait", wait_for_jobs)
    add_ids(waiting)
    waiting.add_argument(
        "--for",
        dest="at_most",
        type=argument(parse_duration),
        metavar="DURATION",
        help="how long at most; then the exit status is 124",
    )

    running = add("run", run_job)
    add_id(running)
    for option in RUN_OPTIONS:
        add_option(running, option)


def _add_ids_or_failed(parser: argparse.ArgumentParser) -> None:
    add_ids(parser, "*")
    parser.add_argument("--failed", action="store_true", help="all jobs that failed")


def _add_options(parser: argparse.ArgumentParser, *, queue: str = "default") -> None:
    add_job_options(parser, queue=queue)
    parser.add_argument(
        "-d",
        "--delay",
        type=argument(parse_duration),
        metavar="DURATION",
        help="how long until the job may run: 10s, 5m, 2h, 1d",
    )
    parser.add_argument(
        "-P",
        "--parent",
        dest="parents",
        type=argument(parse_id),
        action="append",
        default=[],
        metavar="ID",
        help="a job to wait for; repeatable",
    )
