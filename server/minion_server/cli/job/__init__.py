"""`minion job`: list, show, enqueue, change and follow jobs."""

from __future__ import annotations

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
from minion_server.cli.parsers import AddVerb, Commands, VerbParser, add_ids, add_page_arguments
from minion_server.cli.verbs import add_verbs
from minion_server.settings.sources import add_option
from minion_server.settings.values import parse_duration, parse_id


def add_parser(commands: Commands[Any]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "job", "list, show, enqueue, change and follow jobs")
    _add_finding(add)
    _add_changing(add)
    _add_following(add)


def _add_finding(add: AddVerb) -> None:
    listing = add("list", list_jobs)
    several: dict[str, Any] = {"action": "append", "default": []}
    for names, text in (
        ("-q --queue", "only jobs of this queue; repeatable"),
        ("-t --task", "only jobs of this task; repeatable"),
        ("-n --note", "only jobs with this note; repeatable"),
    ):
        word = names.partition("--")[2]
        listing.add(names, text, dest=f"{word}s", metavar=word.upper(), **several)
    text = "only jobs in this state; repeatable"
    listing.add("-S --state", text, dest="states", choices=STATES, **several)
    listing.add("--before", "only jobs before this one", parse_id)
    add_page_arguments(listing)

    add_ids(add("show", show_jobs))
    add_ids(add("explain", explain_jobs))


def _add_changing(add: AddVerb) -> None:
    enqueueing = add("enqueue", enqueue_job)
    add_content_arguments(enqueueing)
    enqueueing.add("--request-id", "enqueue once, however often this is repeated")
    enqueueing.add("--wait", "wait for it, as `job wait` does", action="store_true")
    _add_options(enqueueing)

    retrying = add("retry", retry_jobs)
    _add_ids_or_failed(retrying)
    _add_options(retrying, queue="its own")
    text = "let it wait for no job"
    retrying.add("--no-parents", text, dest="clear_parents", action="store_true")

    cancelling = add("cancel", cancel_jobs)
    add_ids(cancelling)
    cancelling.add("--reason", "why, for the job's result")

    _add_ids_or_failed(add("remove", remove_jobs))

    noting = add("note", note_job)
    noting.add("id", None, parse_id)
    noting.add("notes", "what to merge, as a JSON object", parse_object)


def _add_following(add: AddVerb) -> None:
    add("watch", watch_job).add("id", None, parse_id)

    waiting = add("wait", wait_for_jobs)
    add_ids(waiting)
    text = "how long at most; then the exit status is 124"
    waiting.add("--for", text, parse_duration, dest="at_most")

    running = add("run", run_job)
    running.add("id", None, parse_id)
    for option in RUN_OPTIONS:
        add_option(running, option)


def _add_ids_or_failed(parser: VerbParser) -> None:
    add_ids(parser, "*")
    parser.add("--failed", "all jobs that failed", action="store_true")


def _add_options(parser: VerbParser, *, queue: str = "default") -> None:
    add_job_options(parser, queue=queue)
    text = "how long until the job may run: 10s, 5m, 2h, 1d"
    parser.add("-d --delay", text, parse_duration)
    text = "a job to wait for; repeatable"
    parser.add("-P --parent", text, parse_id, dest="parents", action="append", default=[])
