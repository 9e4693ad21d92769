"""`minion job`: list, show, enqueue, change and follow jobs."""

from __future__ import annotations

import argparse

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
from minion_server.cli.json_arguments import parse_array, parse_object
from minion_server.cli.verbs import AddVerb, add_page_arguments, add_verbs
from minion_server.settings.sources import add_option
from minion_server.settings.values import argument, parse_duration, parse_id, parse_int32


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "job", "list, show, enqueue, change and follow jobs")
    _add_finding(add)
    _add_changing(add)
    _add_following(add)


def _add_finding(add: AddVerb) -> None:
    listing = add("list", list_jobs, "list jobs, newest first")
    listing.add_argument(
        "-q", "--queue", action="append", default=[], help="only jobs of this queue; repeatable"
    )
    listing.add_argument(
        "-S", "--state", action="append", default=[], choices=STATES, help="repeatable"
    )
    listing.add_argument(
        "-t", "--task", action="append", default=[], help="only jobs of this task; repeatable"
    )
    listing.add_argument(
        "-n", "--note", action="append", default=[], help="only jobs with this note; repeatable"
    )
    listing.add_argument(
        "--before", type=argument(parse_id), metavar="ID", help="only jobs before this one"
    )
    add_page_arguments(listing)

    _add_ids(add("show", show_jobs, "show everything about jobs"))
    _add_ids(add("explain", explain_jobs, "tell why jobs do not run yet"))


def _add_changing(add: AddVerb) -> None:
    enqueueing = add("enqueue", enqueue_job, "put a job into the queue, and print its id")
    enqueueing.add_argument("task", help="name of the task")
    enqueueing.add_argument(
        "args",
        nargs="?",
        type=argument(parse_array),
        help="arguments, as a JSON array (default: none)",
    )
    enqueueing.add_argument(
        "-n", "--notes", type=argument(parse_object), help="metadata, as a JSON object"
    )
    enqueueing.add_argument("--request-id", help="enqueue once, however often this is repeated")
    enqueueing.add_argument("--wait", action="store_true", help="wait for it, as `job wait` does")
    _add_job_options(enqueueing)

    retrying = add("retry", retry_jobs, "put jobs back into the queue")
    _add_ids(retrying, "*")
    retrying.add_argument("--failed", action="store_true", help="all jobs that failed")
    _add_job_options(retrying)
    retrying.add_argument("--no-parents", action="store_true", help="let it wait for no job")

    cancelling = add("cancel", cancel_jobs, "fail jobs for good, stopping them where they run")
    _add_ids(cancelling)
    cancelling.add_argument("--reason", help="why, for the job's result")

    removing = add("remove", remove_jobs, "remove jobs that are not active")
    _add_ids(removing, "*")
    removing.add_argument("--failed", action="store_true", help="all jobs that failed")

    noting = add("note", note_job, "merge notes into a job's; null removes one")
    noting.add_argument("id", type=argument(parse_id), metavar="ID")
    noting.add_argument(
        "notes", type=argument(parse_object), help="what to merge, as a JSON object"
    )


def _add_following(add: AddVerb) -> None:
    watching = add("watch", watch_job, "print each change of a job until it finished or failed")
    watching.add_argument("id", type=argument(parse_id), metavar="ID")

    waiting = add("wait", wait_for_jobs, "wait until jobs have ended, and print their results")
    _add_ids(waiting)
    waiting.add_argument(
        "--for",
        dest="at_most",
        type=argument(parse_duration),
        metavar="DURATION",
        help="how long at most; then the exit status is 124",
    )

    running = add("run", run_job, "retry a job and perform it in this process, for debugging")
    running.add_argument("id", type=argument(parse_id), metavar="ID")
    for option in RUN_OPTIONS:
        add_option(running, option)


def _add_ids(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    parser.add_argument("ids", nargs=nargs, type=argument(parse_id), metavar="ID")


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--queue", help="name of the queue")
    parser.add_argument(
        "-p", "--priority", type=argument(parse_int32), metavar="N", help="higher runs first"
    )
    parser.add_argument(
        "-A",
        "--attempts",
        type=argument(parse_int32),
        metavar="N",
        help="how often it may be performed",
    )
    parser.add_argument(
        "-d",
        "--delay",
        type=argument(parse_duration),
        metavar="DURATION",
        help="not before: 10s, 5m, 2h, 1d",
    )
    parser.add_argument(
        "-E", "--expire", type=argument(parse_duration), metavar="DURATION", help="not after"
    )
    parser.add_argument(
        "-P",
        "--parent",
        type=argument(parse_id),
        action="append",
        default=[],
        metavar="ID",
        help="a job to wait for; repeatable",
    )
    parser.add_argument(
        "-x",
        "--lax",
        action=argparse.BooleanOptionalAction,
        help="let it run after failed parents too",
    )
