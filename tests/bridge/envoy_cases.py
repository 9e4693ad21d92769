"""Requests with equal responses of the bridge and Envoy, and those with differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support.rpc_bench import KEY

FORM = "application/x-www-form-urlencoded"
"""The Content-Type that curl sends with any body."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to a method, or one that must not reach it; the body is JSON or text."""

    rpc: str
    method: str
    target: str
    body: Any = None
    key: str | None = KEY
    content_type: str | None = "application/json"
    encoding: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.body if self.body is not None else ''}"[:120]


# The requests to the servers, in this order: each from its first call to its errors. Both have the
# same history, and their clocks are stopped, so that responses are identical.
STORY = [
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {
        "task": "bar", "args": [1, "zwei", None, True, {"a": [0.5]}], "queue": "q", "priority": -3,
        "attempts": 5, "delay": "90.5s", "expire": "3600s", "lax": True, "notes": {"n": {"m": 1}},
        "parents": ["1"], "requestId": "r1"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "bar", "request_id": "r1"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "parents": [1, "2"], "priority": "7"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "attempts": 1e0, "queue": None}),
    Ask("EnqueueJob", "POST", "/v1/jobs/", {"task": "foo"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo"}, content_type=None),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo"}, content_type="text/plain"),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo"}, content_type=FORM),
    Ask("EnqueueJob", "POST", "/v1/jobs", "task=foo", content_type=FORM),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo"}, content_type="application/json; x=y"),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": 'größe \U0001f600 "<&>\u2028'}),
    Ask("EnqueueJob", "POST", "/v1/jobs"),
    Ask("EnqueueJob", "POST", "/v1/jobs", {}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": ""}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "x" * 256}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "attempts": 0}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "delay": "-1s"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "parents": [0]}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo"}, key=None),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo"}, key="wrong"),
    Ask("EnqueueJob", "POST", "/v1/jobs", "{bad"),
    Ask("EnqueueJob", "POST", "/v1/jobs", "[]"),
    Ask("EnqueueJob", "POST", "/v1/jobs", '"foo"'),
    Ask("EnqueueJob", "POST", "/v1/jobs", "null"),
    Ask("EnqueueJob", "POST", "/v1/jobs", '{"task": "foo"} x'),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": 1}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "priority": 2**31}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "priority": 1.5}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "priority": "x"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "parents": [2**63]}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "lax": 1}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "delay": 5}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "delay": "5"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "notes": []}),
    Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "foo", "args": "[]"}),
    Ask("EnqueueJob", "POST", "/v1/jobs?nope=1", {"task": "foo"}),
    Ask("EnqueueJob", "POST", "/v1/jobs", '{"task": "foo", "requestId": "a", "request_id": "b"}'),
    Ask("EnqueueJobs", "POST", "/v1/jobs:batchEnqueue", {
        "requests": [{"task": "foo", "queue": "q2"}, {"task": "bar", "notes": {"a": 1}}]}),
    Ask("EnqueueJobs", "POST", "/v1/jobs:batchEnqueue", {"requests": []}),
    Ask("EnqueueJobs", "POST", "/v1/jobs:batchEnqueue", {"requests": [{"task": "a"}, {}]}),
    Ask("EnqueueJobs", "POST", "/v1/jobs%3AbatchEnqueue", {"requests": [{"task": "a"}]}),
    Ask("GetJob", "GET", "/v1/jobs/1/status", key=None),
    Ask("GetJob", "GET", "/v1/jobs/%31/status", key=None),
    Ask("GetJob", "GET", "/v1/jobs/999/status", key=None),
    Ask("GetJob", "GET", "/v1/jobs/0/status", key=None),
    Ask("GetJob", "GET", "/v1/jobs//status", key=None),
    Ask("GetJob", "GET", "/v1/jobs/-1/status", key="wrong"),
    Ask("GetJob", "POST", "/v1/jobs/1/status/more", {}),
    Ask("GetJobDetail", "GET", "/v1/jobs/1"),
    Ask("GetJobDetail", "GET", "/v1/jobs/2/"),
    Ask("GetJobDetail", "GET", "/v1/jobs/1", key=None),
    Ask("GetJobDetail", "GET", "/v1/jobs/999"),
    Ask("GetJobDetail", "GET", "/v1/jobs/9223372036854775808"),
    Ask("GetJobDetail", "GET", "/v1/jobs/x"),
    Ask("GetJobDetail", "GET", "/v1/jobs/1.0"),
    Ask("GetJobDetail", "GET", "/v1/jobs/1e0"),
    Ask("GetJobDetail", "GET", "/v1/jobs/0x1"),
    Ask("GetJobDetail", "GET", "/v1/jobs/%20"),
    Ask("GetJobDetail", "GET", "/v1/jobs/1:nope"),
    Ask("GetJobDetail", "GET", "/v1/jobs/1?nope=1"),
    Ask("GetJobDetail", "GET", "/v1//jobs/1"),
    Ask("GetJobDetail", "GET", "/V1/jobs/1"),
    Ask("GetJobDetail", "GET", "/v1/./jobs/1"),
    Ask("GetJobDetail", "GET", "/v1/x/../jobs/1"),
    Ask("ListJobs", "GET", "/v1/jobs"),
    Ask("ListJobs", "GET", "/v1/jobs?states=inactive&states=failed&tasks=foo&queues=default"),
    Ask("ListJobs", "GET", "/v1/jobs?ids=1&ids=2&pageSize=1"),
    Ask("ListJobs", "GET", "/v1/jobs?page_size=2&skip=1&before=5"),
    Ask("ListJobs", "GET", "/v1/jobs?notes=n&notes=a+b&&"),
    Ask("ListJobs", "GET", "/v1/jobs?tasks=gr%C3%B6%C3%9Fe%20%F0%9F%98%80+%22%3C%26%3E%E2%80%A8"),
    Ask("ListJobs", "GET", "/v1/jobs?tasks="),
    Ask("ListJobs", "GET", "/v1/jobs?states=nope"),
    Ask("ListJobs", "GET", "/v1/jobs?pageSize=0"),
    Ask("ListJobs", "GET", "/v1/jobs?pageSize=1&page_size=2"),
    Ask("ListJobs", "GET", "/v1/jobs?pageSize=x"),
    Ask("ListJobs", "GET", "/v1/jobs?pageSize=1.0"),
    Ask("ListJobs", "GET", "/v1/jobs?pageSize="),
    Ask("ListJobs", "GET", "/v1/jobs?before=9223372036854775808"),
    Ask("ListJobs", "GET", "/v1/jobs?ids=1,2"),
    Ask("ListJobs", "GET", "/v1/jobs?pageToken=nonsense"),
    Ask("ListJobs", "GET", "/v1/jobs?nope=1"),
    Ask("ListJobs", "GET", "/v1/jobs?states.x=1"),
    Ask("ListJobs", "GET", "/v1/jobs?States=inactive"),
    Ask("NoteJob", "PATCH", "/v1/jobs/1/notes", {"notes": {"a": 1, "b": None, "c": "\u00e9"}}),
    Ask("NoteJob", "PATCH", "/v1/jobs/1/notes", {"notes": {"a": None}, "id": "1"}),
    Ask("NoteJob", "PATCH", "/v1/jobs/1/notes", {"notes": {}, "id": "2"}),
    Ask("NoteJob", "PATCH", "/v1/jobs/999/notes", {"notes": {"a": 1}}),
    Ask("NoteJob", "PATCH", "/v1/jobs/1/notes", {"notes": {"a": 1}}, key=None),
    Ask("CancelJob", "POST", "/v1/jobs/4:cancel", {"reason": "why not"}),
    Ask("CancelJob", "POST", "/v1/jobs/4:cancel", {}),
    Ask("CancelJob", "POST", "/v1/jobs/4:cancel"),
    Ask("CancelJob", "POST", "/v1/jobs/999:cancel", {}),
    Ask("CancelJob", "POST", "/v1/jobs/:cancel", {}),
    Ask("CancelJob", "PUT", "/v1/jobs/4/more:cancel", {}),
    Ask("GetJob", "GET", "/v1/jobs/4/status", key=None),
    Ask("RetryJob", "POST", "/v1/jobs/4:retry", {"retries": 0, "priority": 0, "delay": "1s"}),
    Ask("RetryJob", "POST", "/v1/jobs/4:retry", {"retries": 0}),
    Ask("RetryJob", "POST", "/v1/jobs/4:retry", {"parents": ["1"], "expire": "60s", "lax": False}),
    Ask("RetryJob", "POST", "/v1/jobs/4:retry"),
    Ask("RetryJob", "POST", "/v1/jobs/999:retry"),
    Ask("RetryJob", "POST", "/v1/jobs/4:retry", {"attempts": -1}),
    Ask("GetJobDetail", "GET", "/v1/jobs/4"),
    Ask("ExplainJob", "GET", "/v1/jobs/2:explain"),
    Ask("ExplainJob", "GET", "/v1/jobs/4:explain"),
    Ask("ExplainJob", "GET", "/v1/jobs/999:explain"),
    Ask("ExplainJob", "GET", "/v1/jobs/1:explain?verbose=1"),
    Ask("RegisterWorker", "POST", "/v1/workers", {
        "host": "h", "pid": 12, "status": {"queues": ["default"], "jobs": 2}}),
    Ask("RegisterWorker", "POST", "/v1/workers", {"id": "1", "host": "h", "pid": 12}),
    Ask("RegisterWorker", "POST", "/v1/workers"),
    Ask("RegisterWorker", "POST", "/v1/workers", {"host": ""}),
    Ask("RegisterWorker", "POST", "/v1/workers", {"pid": "a"}),
    Ask("RegisterWorker", "POST", "/v1/workers", {}, key=None),
    Ask("DequeueJobs", "POST", "/v1/workers/1:dequeue", {"maxJobs": 2, "tasks": ["foo"]}),
    Ask("DequeueJobs", "POST", "/v1/workers/1:dequeue", {"queues": ["q2"], "wait": "0.01s"}),
    Ask("DequeueJobs", "POST", "/v1/workers/1:dequeue", {"queues": ["none"], "wait": "0.01s"}),
    Ask("DequeueJobs", "POST", "/v1/workers/999:dequeue", {}),
    Ask("DequeueJobs", "POST", "/v1/workers/1:dequeue", {"wait": "301s"}),
    Ask("DequeueJobs", "POST", "/v1/workers/1:dequeue", {"max_jobs": 0}),
    Ask("ListWorkers", "GET", "/v1/workers"),
    Ask("ListWorkers", "GET", "/v1/workers?ids=1&pageSize=1"),
    Ask("ListWorkers", "GET", "/v1/workers?before=x"),
    Ask("FinishJob", "POST", "/v1/jobs/1:finish", {"result": {"a": [1, None]}}),
    Ask("FinishJob", "POST", "/v1/jobs/1:finish", {"result": None}),
    Ask("FinishJob", "POST", "/v1/jobs/1:finish"),
    Ask("FinishJob", "POST", "/v1/jobs/999:finish", {}),
    Ask("FailJob", "POST", "/v1/jobs/5:fail", {"retries": 1, "result": "oh no"}),
    Ask("FailJob", "POST", "/v1/jobs/5:fail", {"result": "oh no"}),
    Ask("FailJob", "POST", "/v1/jobs/999:fail", {}),
    Ask("GetJob", "GET", "/v1/jobs/5/status"),
    Ask("GetJobDetail", "GET", "/v1/jobs/1"),
    Ask("ExplainJob", "GET", "/v1/jobs/1:explain"),
    Ask("RemoveJob", "DELETE", "/v1/jobs/5"),
    Ask("RemoveJob", "DELETE", "/v1/jobs/5"),
    Ask("RemoveJob", "DELETE", "/v1/jobs/x"),
    Ask("BroadcastCommand", "POST", "/v1/workers:broadcast", {"command": "jobs", "args": [12]}),
    Ask("BroadcastCommand", "POST", "/v1/workers:broadcast", {"command": "stop", "ids": ["9"]}),
    Ask("BroadcastCommand", "POST", "/v1/workers:broadcast", {"command": ""}),
    Ask("ReceiveCommands", "POST", "/v1/workers/1:receive"),
    Ask("ReceiveCommands", "POST", "/v1/workers/1:receive", {}),
    Ask("ReceiveCommands", "POST", "/v1/workers/999:receive", {}),
    Ask("ReceiveCommands", "POST", "/v1/workers/1:receive", {"id": 2}),
    Ask("UnregisterWorker", "DELETE", "/v1/workers/2"),
    Ask("UnregisterWorker", "DELETE", "/v1/workers/2"),
    Ask("UnregisterWorker", "DELETE", "/v1/workers/0"),
    Ask("AcquireLock", "POST", "/v1/locks:acquire", {"name": "l", "duration": "60s", "limit": 2}),
    Ask("AcquireLock", "POST", "/v1/locks:acquire", {"name": "l", "duration": "0s"}),
    Ask("AcquireLock", "POST", "/v1/locks:acquire", {"name": "l"}),
    Ask("AcquireLock", "POST", "/v1/locks:acquire", {"name": "l", "duration": "-1s"}),
    Ask("AcquireLock", "POST", "/v1/locks:acquire", {"name": "l", "limit": 0}),
    Ask("AcquireLock", "POST", "/v1/locks:acquire", {"duration": "60s"}),
    Ask("AcquireLock", "POST", "/v1/locks:acquire", {"name": "l", "duration": "315576000001s"}),
    Ask("ListLocks", "GET", "/v1/locks"),
    Ask("ListLocks", "GET", "/v1/locks?names=l&names=m&page_size=1"),
    Ask("ListLocks", "GET", "/v1/locks?skip=-1"),
    Ask("RenewLock", "POST", "/v1/locks:renew", {"name": "l", "id": "1", "duration": "90s"}),
    Ask("RenewLock", "POST", "/v1/locks:renew", {"name": "l", "id": 99, "duration": "90s"}),
    Ask("RenewLock", "POST", "/v1/locks:renew", {"name": "l", "id": "1"}),
    Ask("RenewLock", "POST", "/v1/locks:renew", {"name": "l", "duration": "90s"}),
    Ask("ReleaseLock", "POST", "/v1/locks:release", {"name": "l", "id": "99"}),
    Ask("ReleaseLock", "POST", "/v1/locks:release", {"name": "l", "id": "1"}),
    Ask("ReleaseLock", "POST", "/v1/locks:release", {"name": "l", "id": 0}),
    Ask("ReleaseLock", "POST", "/v1/locks:release", {"name": "l"}),
    Ask("ReleaseLock", "POST", "/v1/locks:release"),
    Ask("PutSchedule", "POST", "/v1/schedules", {
        "name": "a/b c", "cron": "*/5 * * * mon-fri", "task": "foo", "args": [1],
        "expire": "60s", "notes": {"x": None}, "attempts": 2, "queue": "q"}),
    Ask("PutSchedule", "POST", "/v1/schedules", {"name": "a:b", "cron": "@daily", "task": "foo"}),
    Ask("PutSchedule", "POST", "/v1/schedules", {"name": "x", "cron": "61 * * * *", "task": "f"}),
    Ask("PutSchedule", "POST", "/v1/schedules", {"name": "x", "cron": "0 0 31 2 *", "task": "f"}),
    Ask("PutSchedule", "POST", "/v1/schedules", {"name": "x", "cron": "@daily"}),
    Ask("PauseSchedule", "POST", "/v1/schedules/a%2Fb%20c:pause", {}),
    Ask("PauseSchedule", "POST", "/v1/schedules/a:b:pause"),
    Ask("PauseSchedule", "POST", "/v1/schedules/a%3Ab:pause"),
    Ask("PauseSchedule", "POST", "/v1/schedules/nope:pause"),
    Ask("PauseSchedule", "POST", "/v1/schedules/a/b:pause"),
    Ask("PauseSchedule", "POST", "/v1/schedules/a:b:pause", {"name": "c"}),
    Ask("ListSchedules", "GET", "/v1/schedules"),
    Ask("ListSchedules", "GET", "/v1/schedules?names=a%2Fb+c&ids=1&ids=2&pageSize=10"),
    Ask("ResumeSchedule", "POST", "/v1/schedules/a:b:resume"),
    Ask("ResumeSchedule", "POST", "/v1/schedules/nope:resume", {}),
    Ask("ResumeSchedule", "POST", "/v1/schedules/a:b:resume", {}, key=None),
    Ask("ListSchedules", "GET", "/v1/schedules?before=0"),
    Ask("DeleteSchedule", "DELETE", "/v1/schedules/a:b", key="wrong"),
    Ask("DispatchSchedules", "POST", "/v1/schedules:dispatch"),
    Ask("DispatchSchedules", "POST", "/v1/schedules:dispatch", {}, key=None),
    Ask("DeleteSchedule", "DELETE", "/v1/schedules/a%2Fb%20c"),
    Ask("DeleteSchedule", "DELETE", "/v1/schedules/a%2Fb+c"),
    Ask("GetStats", "GET", "/v1/stats"),
    Ask("GetStats", "GET", "/v1/stats", key=None),
    Ask("GetStats", "GET", "/v1/stats?x=1"),
    Ask("GetHistory", "GET", "/v1/history"),
    Ask("GetHistory", "GET", "/v1/history/more"),
    Ask("CheckAccess", "GET", "/v1/access?method=minion.v1.MinionService/EnqueueJob"),
    Ask("CheckAccess", "GET", "/v1/access?method=minion.v1.MinionService/Nope"),
    Ask("CheckAccess", "GET", "/v1/access"),
    Ask("CheckAccess", "GET", "/v1/access?method=minion.v1.MinionService/ListJobs", key=None),
    Ask("CheckAccess", "GET", "/v1/access?method=minion.v1.MinionService/ListJobs", key="wrong"),
    Ask("Repair", "POST", "/v1/admin:repair"),
    Ask("Repair", "POST", "/v1/admin:repair", {}),
    Ask("Repair", "POST", "/v1/admin:repair", {}, key="wrong"),
    Ask("Reset", "POST", "/v1/admin:reset", {"locks": True}),
    Ask("Reset", "POST", "/v1/admin:reset", {"locks": 1}),
    Ask("Reset", "POST", "/v1/admin:reset", {}),
    Ask("Reset", "POST", "/v1/admin:reset", {"all": True}),
    Ask("ListJobs", "GET", "/v1/jobs"),
    Ask("GetJob", "GET", "/minion.v1.MinionService/GetJob"),
    Ask("GetJob", "GET", "/v1"),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference that Envoy's settings cannot avoid: the reason, an example, both statuses."""

    why: str
    ask: Ask
    ours: int
    envoys: int


def _put(body: str, why: str, *, ours: int = 400, envoys: int = 200) -> Difference:
    return Difference(why, Ask("Echo", "PUT", "/echo/all", body), ours, envoys)


def _get(target: str, why: str, *, ours: int = 400, envoys: int = 200) -> Difference:
    return Difference(why, Ask("Echo", "GET", target), ours, envoys)


_UNKNOWN = "Envoy ignores unknown fields of bodies; the contract refuses them"
_PAIR = "Envoy ignores parameters without an equals sign, and without a name"
_PATH = "Envoy lets the query override the path"
_QUERY = 'with `body: "*"` no field is left for the query (google/api/http.proto)'
_TEXT = "Envoy's JSON has trailing commas, single quotes and names without quotes"
_TWICE = "Envoy uses the last of duplicate fields"
_KIND = "Envoy accepts strings as booleans and numbers, also yes and t"
_ONE = "Envoy accepts one value as a list of one, and an empty object as an empty list"
_NULL = "Envoy ignores nulls in lists, which proto JSON does not allow"
_WELL = "Envoy sets fields within protobuf's own types, which have one JSON form"
_ENUM = "Envoy refuses unknown numbers of enums in URLs"
_BODY = "Envoy reads the body of a GET or DELETE, which has no meaning (RFC 9110, 9.3.1)"
_UTF8 = "Envoy leaves invalid UTF-8 to the server, which refuses it with another text"
_FORM = "Envoy's numbers and times have more forms than proto JSON"

_KEY = "Envoy reads the body before the server checks the key"
_ENCODED = "Envoy reads a compressed body as JSON"

DIFFERENCES = [
    Difference(_KEY, Ask("EnqueueJob", "POST", "/v1/jobs", "{bad", key=None), 401, 400),
    Difference(_KEY, Ask("EnqueueJob", "POST", "/v1/jobs", {"task": 1}, key="wrong"), 401, 400),
    Difference(_KEY, Ask("ListJobs", "GET", "/v1/jobs?nope=1", key=None), 401, 400),
    Difference(
        _ENCODED, Ask("EnqueueJob", "POST", "/v1/jobs", "\x1f\x8b", encoding="gzip"), 415, 400,
    ),
    Difference(_UNKNOWN, Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "nope": 1}), 400, 200),
    Difference(_UNKNOWN, Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "Task": 1}), 400, 200),
    Difference(_PAIR, Ask("ListJobs", "GET", "/v1/jobs?nope"), 400, 200),
    Difference(_PAIR, Ask("ListJobs", "GET", "/v1/jobs?=1"), 400, 200),
    Difference(_PATH, Ask("GetJobDetail", "GET", "/v1/jobs/1?id=1"), 400, 200),
    Difference(_QUERY, Ask("EnqueueJob", "POST", "/v1/jobs?queue=q", {"task": "a"}), 400, 200),
    Difference(_TEXT, Ask("EnqueueJob", "POST", "/v1/jobs", '{"task": "a",}'), 400, 200),
    Difference(_TEXT, Ask("EnqueueJob", "POST", "/v1/jobs", "{task: 'a'}"), 400, 200),
    Difference(_TWICE, Ask("EnqueueJob", "POST", "/v1/jobs", '{"task":"a","task":"b"}'), 400, 200),
    Difference(_BODY, Ask("ListJobs", "GET", "/v1/jobs", {"states": "nope"}), 200, 400),
    Difference(_BODY, Ask("RemoveJob", "DELETE", "/v1/jobs/999", {"id": "1"}), 404, 400),
    Difference(_UTF8, Ask("PauseSchedule", "POST", "/v1/schedules/%FF:pause"), 400, 400),
    Difference(_UTF8, Ask("ListSchedules", "GET", "/v1/schedules?names=%FF"), 400, 400),
    Difference(_KIND, Ask("Reset", "POST", "/v1/admin:reset", {"locks": "true"}), 400, 200),
    Difference(_ONE, Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "parents": 1}), 400, 200),
    Difference(_ONE, Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "args": {}}), 400, 200),
    Difference(
        _NULL, Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "parents": [None]}), 400, 200,
    ),
    Difference(_FORM, Ask("GetJobDetail", "GET", "/v1/jobs/+1"), 400, 200),
    Difference(
        _FORM, Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "delay": "+1s"}), 400, 200,
    ),
    Difference(
        "Envoy reads integers in quotes without a fraction or an exponent only",
        Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "priority": "1e0"}), 200, 400,
    ),
    Difference(
        "Envoy rounds 2^53+1 and leaves it to the server to refuse what it became",
        Ask("EnqueueJob", "POST", "/v1/jobs", {"task": "a", "args": [2**53 + 1]}), 400, 400,
    ),
    Difference(
        "Envoy leaves it to the server to refuse NUL characters in JSON values",
        Ask("Echo", "PUT", "/echo/all", '{"jsonValue": "\\u0000"}'), 400, 200,
    ),
    Difference(
        "... and whole numbers that may have been rounded",
        Ask("Echo", "PUT", "/echo/all", '{"jsonValue": 9007199254740992}'), 400, 200,
    ),
    Difference(
        "Envoy has one response for an unknown path and for one that has other methods",
        Ask("GetStats", "POST", "/v1/stats", {}), 405, 404,
    ),
    Difference(
        "... so that a verb in other letters is another path here, and none there",
        Ask("CancelJob", "POST", "/v1/jobs/4%3Acancel", {}), 405, 404,
    ),
    Difference(
        "Envoy serves HEAD as such only if a rule says so",
        Ask("GetStats", "HEAD", "/v1/stats"), 200, 404,
    ),
    _get("/echo/get?boolField=1", _KIND),
    _get("/echo/get?doubleField=1.", _FORM),
    _get("/echo/get?enumField=77", _ENUM, ours=200, envoys=400),
    _get("/echo/get?text=a&text=b", _TWICE),
    _get("/echo/get?span.seconds=5", _WELL),
    _get("/echo/get?mask=text,child.int_field", _FORM),
    _get("/echo/get?jsonValue=1", "Envoy takes the text of a parameter for a Value"),
    _get("/echo/get?children.text=1", "Envoy lets the query reach into a list of messages"),
    _put('{"wide": {"value": 5}}', _WELL),
    _put('{"enumField": "1"}', _KIND),
    _put('{"counts": {"a": null}}', _NULL),
    _put('{"byBool": {"1": {}}}', _KIND),
    _put('{"time": "2026-01-31T23:59:60Z"}', _FORM),
]  # fmt: skip

# Forms of values, not all of which occur in the methods of the contract.
ECHO_QUERIES = [
    "int32Field=-1&double_field=1.5&boolField=true",
    "text=a+b%2Bc%26&data=-_8",
    "text=a=b&text_list=&textList=b",
    "int32List=1&int32_list=2",
    "int32Field=",
    "int32Field=2147483648",
    "int32Field=01",
    "int32Field=%201",
    "int32Field=1e2",
    "uint32Field=-1",
    "uint64Field=18446744073709551615",
    "uint64Field=18446744073709551616",
    "doubleField=NaN",
    "doubleField=inf",
    "doubleField=1e400",
    "floatField=0.1",
    "floatField=1e39",
    "boolField=",
    "enumField=2&enumList=RED&enumList=0",
    "enumField=red",
    "enumField=1.0",
    "maybe=0",
    "maybe=1&maybe=2",
    "first=x",
    "first=x&second=2",
    "time=2026-01-31T12:00:00.5Z&span=1.5s",
    "time=2026-01-31T12:00:00%2B01:00",
    "time=2026-01-31T12:00:00+01:00",
    "time=2026-01-31",
    "span=-0.5s",
    "span=.5s",
    "span=315576000001s",
    "times=2026-01-31T12:00:00Z&times=1970-01-01T00:00:00Z",
    "wide=9007199254740993&flag=false&word=w",
    "mask=text,child.intField",
    "child.int32Field=4&child.textList=a&child.textList=b",
    "child.child.child.text=deep",
    "place.x=1&place.names=a&place.names=b",
    "child=1",
    "counts.a=1",
    "object=1",
    "object.a=1",
    "jsonList=1",
    "any=1",
    "nothing=NULL_VALUE",
    "data=A",
    "data=AA",
    "data=!!",
    "%74ext=a",
    "text=%",
    "text=%zz",
    "text=%00",
    "text=a;b=c",
    "text.x=1",
    "child.nope=1",
]  # fmt: skip

ECHO_PATHS = [
    "/echo/int/-9223372036854775808",
    "/echo/int/9223372036854775808",
    "/echo/int/",
    "/echo/int/5/",
    "/echo/nested/5/deep?child.boolField=true",
    "/echo/shelves/1/books/a%2Fb%20c",
    "/echo/shelves/1%2F2/books/b",
    "/echo/files/a/b%3A/c",
    "/echo/files/a%20b+c",
    "/echo/files",
    "/echo/any/x/thing/y%2F%3A",
    "/echo/any/x/thing/%C3%A9",
    "/echo/any/x/thing/a:b",
    "/echo/any/fixed/thing/literal",
    "/echo/verb/a:b:read",
    "/echo/verb/a%3Aread",
    "/echo/every",
]  # fmt: skip

ECHO_BODIES = [
    "", "{}", "[]", "null", "1", "  ", "{", "{}x", "{} {}", "\ufeff{}",
    '{"int32Field": "1"}', '{"int32Field": 1.0}', '{"int32Field": 1e2}', '{"int32Field": 1.5}',
    '{"int32Field": " 1"}', '{"int32Field": ""}', '{"int32Field": null}', '{"int32Field": true}',
    '{"int32Field": 2147483648}', '{"int64Field": 9007199254740993}',
    '{"int64Field": "9007199254740993"}', '{"int64Field": 9223372036854775808}',
    '{"int64Field": 1e18}', '{"int64Field": "-0"}', '{"uint64Field": 18446744073709551615}',
    '{"uint32Field": -1}', '{"doubleField": "NaN"}', '{"doubleField": NaN}',
    '{"doubleField": "-Infinity"}', '{"doubleField": "1.5"}', '{"doubleField": 1e400}',
    '{"doubleField": 1e300}', '{"doubleField": 1e21}', '{"doubleField": 123456789012345678}',
    '{"doubleField": -0.0}', '{"doubleField": 5e-324}', '{"floatField": 0.1}',
    '{"floatField": 3.5e38}', '{"floatField": 16777217}', '{"boolField": true}',
    '{"boolField": 1}', '{"text": 1}', '{"text": "\\ud800"}', '{"text": "\\ud83d\\ude00"}',
    '{"text": "<>&\\u2028/\\u0001\\u007f"}', '{"data": "-_8"}', '{"data": "+/8="}',
    '{"data": "a"}', '{"data": "?"}', '{"enumField": "RED"}', '{"enumField": "red"}',
    '{"enumField": 1}', '{"enumField": 77}', '{"enumField": null}', '{"maybe": 0}',
    '{"maybe": null}', '{"int32List": [1, 2]}', '{"int32List": null}',
    '{"children": [{}, {"text": "a"}]}', '{"child": {}}', '{"child": null}', '{"child": []}',
    '{"counts": {"a": 1, "b": "2"}}', '{"counts": []}',
    '{"byBool": {"true": {}, "false": {"text": "x"}}}', '{"byNumber": {"5": "x", "-1": "y"}}',
    '{"byNumber": {"a": "x"}}', '{"first": "a"}', '{"first": "a", "second": 1}',
    '{"first": null, "second": 1}', '{"time": "2026-01-31T12:00:00Z"}',
    '{"time": "2026-01-31T12:00:00.5Z"}', '{"time": "2026-01-31T12:00:00.123456789Z"}',
    '{"time": "2026-01-31T12:00:00.1234567891Z"}', '{"time": "2026-01-31T12:00:00+01:00"}',
    '{"time": "2026-01-31T12:00:00+24:00"}', '{"time": "2026-01-31T12:00:00"}',
    '{"time": "2026-02-30T12:00:00Z"}', '{"time": "0000-01-01T00:00:00Z"}',
    '{"time": "0001-01-01T00:00:00Z"}', '{"time": "9999-12-31T23:59:59.999999999Z"}',
    '{"time": 5}', '{"span": "1s"}', '{"span": "1.5s"}', '{"span": "0.000001s"}',
    '{"span": "-1.5s"}', '{"span": "-0.5s"}', '{"span": "1"}', '{"span": "315576000000s"}',
    '{"span": "315576000001s"}', '{"span": "1.1234567891s"}', '{"span": 1}',
    '{"mask": "text,child.intField"}', '{"mask": ""}',
    '{"object": {"a": 1, "b": [null, true, "x", {}], "c": {"d": 1.5}}}', '{"object": {}}',
    '{"object": null}', '{"object": []}', '{"object": {"a": 9007199254740991}}',
    '{"object": {"a": 1e300, "b": 0.1, "c": 1e21, "d": -0.0}}', '{"object": {"a": 1e400}}',
    '{"object": {"": 1}}', '{"jsonValue": null}', '{"jsonValue": 1}', '{"jsonValue": "a"}',
    '{"jsonValue": []}', '{"jsonList": [1, "a", null]}', '{"jsonList": null}',
    '{"jsonValues": [null, 1]}', '{"any": {}}',
    '{"any": {"@type": "type.googleapis.com/bridge_test.Place", "x": 1}}',
    '{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}',
    '{"any": {"@type": "type.googleapis.com/nope"}}', '{"any": {"x": 1}}',
    '{"wide": 5}', '{"wide": "5"}', '{"wide": null}', '{"flag": true}', '{"word": ""}',
    '{"nothing": null}', '{"nothing": "NULL_VALUE"}', '{"place": {"x": 1, "names": ["a"]}}',
    '{"child":' * 20 + "{}" + "}" * 20, '{"child":' * 120 + "{}" + "}" * 120,
]  # fmt: skip
