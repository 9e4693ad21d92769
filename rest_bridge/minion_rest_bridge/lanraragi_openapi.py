"""The OpenAPI description of the paths with LANraragi's JSON, which no descriptor describes."""

from __future__ import annotations

from typing import Any, Final

from minion_rest_bridge.fields import MAX_INT32, MAX_INT64
from minion_rest_bridge.forms import MULTIPART, URL_ENCODED
from minion_rest_bridge.lanraragi import METHODS, OPERATIONS, QUEUE
from minion_rest_bridge.policy import policy_of
from minion_rest_bridge.responses import CONTENT_TYPE
from minion_rest_bridge.schemas import REF

TAG: Final = "LANraragi"
LANRARAGI_TAG: Final = {
    "name": TAG,
    "description": "The paths of LANraragi's Minion API, for its clients.",
}

_COUNT: Final = {"type": "integer", "minimum": 0}
_ID: Final = {"type": "integer", "minimum": 1}
_TEXT: Final = {"type": "string"}
_NOTES: Final = {"type": "object", "description": "Metadata attached to the job."}
_STATE: Final = {"enum": ["inactive", "active", "finished", "failed"]}
_TIME: Final = {
    "type": "string",
    "pattern": "^-?[0-9]+$",
    "description": "Whole seconds since 1970-01-01T00:00:00Z.",
}
_TIME_OR_NULL: Final = {**_TIME, "type": ["string", "null"]}
_PRIORITY: Final = {"type": "integer", "format": "int32"}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


LANRARAGI_SCHEMAS: Final[dict[str, Any]] = {
    "JobStatus": _object(
        state=_STATE,
        task=_TEXT,
        error={"type": ["string", "null"], "description": "Null unless the state is failed."},
        notes=_NOTES,
    ),
    "JobDetail": _object(
        args={"type": "array"},
        attempts=_COUNT,
        children={"type": "array", "items": _ID},
        created=_TIME,
        delayed=_TIME,
        expires=_TIME_OR_NULL,
        finished=_TIME_OR_NULL,
        id=_ID,
        lax={"enum": [0, 1]},
        notes=_NOTES,
        # Any number is accepted as a parent.
        parents={"type": "array", "items": {"type": "integer"}},
        priority={"type": "integer"},
        queue=_TEXT,
        result={"description": "What the task returned: any JSON value."},
        retried=_TIME_OR_NULL,
        retries=_COUNT,
        started=_TIME_OR_NULL,
        state=_STATE,
        task=_TEXT,
        time={**_TIME, "description": "The server's clock, in whole seconds since 1970."},
        worker={"type": ["integer", "null"], "description": "Null before the first start."},
    ),
    "JobQueued": _object(operation={"const": QUEUE}, success={"const": 1}, job={"type": "integer"}),
    "OperationError": _object(
        operation=_TEXT, error=_TEXT, success={"const": 0}, successMessage={"const": ""}
    ),
    "KeyError": _object(error=_TEXT),
}

_JOB_ID: Final = {
    "name": "jobid",
    "in": "path",
    "required": True,
    "description": "Id of the job.",
    "schema": {**_ID, "format": "int64", "maximum": MAX_INT64},
}
_QUEUE_PARAMETERS: Final = [
    {
        "name": "jobname",
        "in": "path",
        "required": True,
        "description": "Name of the task.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    {
        "name": "args",
        "in": "query",
        "description": "The arguments, a JSON array. Required, here or in the form.",
        "content": {CONTENT_TYPE: {"schema": {"type": "array"}}},
    },
    {
        "name": "priority",
        "in": "query",
        "description": "Jobs of higher priority run first. Default: 0.",
        "schema": {**_PRIORITY, "minimum": -MAX_INT32 - 1, "maximum": MAX_INT32},
    },
]
_ARGS: Final = {
    "type": "string",
    "contentMediaType": CONTENT_TYPE,
    "contentSchema": {"type": "array"},
}
_FORM: Final = {"type": "object", "properties": {"args": _ARGS, "priority": _PRIORITY}}
_ERRORS: Final = {
    400: "The request cannot be accepted; `error` says why.",
    404: "There is no job with this id.",
    415: "The body is not a form, or is compressed.",
}
_SCHEMAS: Final = {401: "KeyError"}


def lanraragi_paths(errors: dict[int, str]) -> dict[str, Any]:
    """Return the path items.

    Args:
        errors: Descriptions of errors by their HTTP status, for those that are like other paths'.
    """

    def operation(rest: str, schema: str, success: str, **members: Any) -> dict[str, Any]:
        is_open = policy_of(METHODS[OPERATIONS[rest].rpc]).is_open
        is_post = OPERATIONS[rest].http_method == "POST"
        codes = {400, 429, 500, 501, 503, 504} | ({408, 413, 415} if is_post else {404})
        if not is_open:
            codes.add(401)
        texts = errors | _ERRORS
        responses = {"200": _response(success, schema)} | {
            str(code): _response(texts[code], _SCHEMAS.get(code, "OperationError"))
            for code in sorted(codes)
        }
        security: dict[str, Any] = {"security": []} if is_open else {}
        described = {"tags": [TAG], **security, **members, "responses": responses}
        return {OPERATIONS[rest].http_method.lower(): described}

    return {
        "/api/minion/{jobid}": operation(
            "",
            "JobStatus",
            "The state of the job.",
            operationId="GetMinionJobStatus",
            summary="Return the state of a job. Needs no key",
            parameters=[_JOB_ID],
        ),
        "/api/minion/{jobid}/detail": operation(
            "detail",
            "JobDetail",
            "Everything about the job.",
            operationId="GetMinionJobDetail",
            summary="Return everything about a job",
            parameters=[_JOB_ID],
        ),
        "/api/minion/{jobname}/queue": operation(
            "queue",
            "JobQueued",
            "The job's id.",
            operationId="QueueMinionJob",
            summary="Put a job into the queue",
            description="The parameters stand in the query or in a form.",
            parameters=_QUEUE_PARAMETERS,
            requestBody={
                "content": {
                    media_type.decode(): {"schema": _FORM}
                    for media_type in (URL_ENCODED, MULTIPART)
                }
            },
        ),
    }


def _response(description: str, schema: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {CONTENT_TYPE: {"schema": {"$ref": REF + schema}}},
    }
