"""The OpenAPI description of the paths with LANraragi's JSON, which no descriptor describes."""

from __future__ import annotations

from typing import Any, Final

from minion_rest_bridge.schemas import REF

TAG: Final = "LANraragi"
LANRARAGI_TAG: Final = {
    "name": TAG,
    "description": "The paths of LANraragi's Minion API, for its clients.",
}

_ERRORS: Final[dict[int, tuple[str, str]]] = {
    400: ("The request cannot be accepted; `error` says why.", "OperationError"),
    401: ("The key is missing or wrong.", "KeyError"),
    404: ("There is no job with this id.", "OperationError"),
    408: ("The body did not arrive in time.", "OperationError"),
    413: ("The request is too large.", "OperationError"),
    415: ("The body is not a form, or is compressed.", "OperationError"),
    429: ("A limit is reached for now.", "OperationError"),
    500: ("The server met a defect.", "OperationError"),
    501: ("The gRPC server does not know this method.", "OperationError"),
    503: ("The gRPC server is out of reach.", "OperationError"),
    504: ("The deadline passed before the answer came.", "OperationError"),
}

_JOB_ID: Final = {
    "name": "jobid",
    "in": "path",
    "required": True,
    "description": "Id of the job.",
    "schema": {"type": "integer", "format": "int64", "minimum": 1, "maximum": 2**63 - 1},
}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF + schema}}}


def _responses(schema: str, description: str, *errors: int) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": description, "content": _json(schema)}}
    for code in errors:
        text, name = _ERRORS[code]
        responses[str(code)] = {"description": text, "content": _json(name)}
    return responses


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_IDS: Final = {"type": "array", "items": {"type": "integer", "minimum": 1}}
# Any number is taken for a parent.
_PARENTS: Final = {"type": "array", "items": {"type": "integer"}}
_NOTES: Final = {"type": "object", "description": "Metadata attached to the job."}
_STATE: Final = {"enum": ["inactive", "active", "finished", "failed"]}
_TIME: Final = {
    "type": "string",
    "pattern": "^-?[0-9]+$",
    "description": "Whole seconds since 1970-01-01T00:00:00Z.",
}
_TIME_OR_NULL: Final = {**_TIME, "type": ["string", "null"]}
_FAILED: Final = {"const": 0}

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
        children=_IDS,
        created=_TIME,
        delayed=_TIME,
        expires=_TIME_OR_NULL,
        finished=_TIME_OR_NULL,
        id={"type": "integer", "minimum": 1},
        lax={"enum": [0, 1]},
        notes=_NOTES,
        parents=_PARENTS,
        priority={"type": "integer"},
        queue=_TEXT,
        result={"description": "What the task answered: any JSON value."},
        retried=_TIME_OR_NULL,
        retries=_COUNT,
        started=_TIME_OR_NULL,
        state=_STATE,
        task=_TEXT,
        time={**_TIME, "description": "The server's clock, in whole seconds since 1970."},
        worker={"type": ["integer", "null"], "description": "Null before the first start."},
    ),
    "JobQueued": _object(
        operation={"const": "queue_minion_job"}, success={"const": 1}, job={"type": "integer"}
    ),
    "OperationError": _object(
        operation=_TEXT, error=_TEXT, success=_FAILED, successMessage={"const": ""}
    ),
    "KeyError": _object(error=_TEXT),
}

_FORM: Final = {
    "type": "object",
    "properties": {
        "args": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"type": "array"},
        },
        "priority": {"type": "integer", "format": "int32"},
    },
}

LANRARAGI_PATHS: Final[dict[str, Any]] = {
    "/api/minion/{jobid}": {
        "get": {
            "operationId": "GetMinionJobStatus",
            "summary": "Tell the state of a job. Needs no key",
            "tags": [TAG],
            "security": [],
            "parameters": [_JOB_ID],
            "responses": _responses(
                "JobStatus", "The state of the job.", 400, 404, 429, 500, 501, 503, 504
            ),
        }
    },
    "/api/minion/{jobid}/detail": {
        "get": {
            "operationId": "GetMinionJobDetail",
            "summary": "Tell everything about a job",
            "tags": [TAG],
            "parameters": [_JOB_ID],
            "responses": _responses(
                "JobDetail", "Everything about the job.", 400, 401, 404, 429, 500, 501, 503, 504
            ),
        }
    },
    "/api/minion/{jobname}/queue": {
        "post": {
            "operationId": "QueueMinionJob",
            "summary": "Put a job into the queue",
            "tags": [TAG],
            "description": "The parameters stand in the query or in a form.",
            "parameters": [
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
                    "content": {"application/json": {"schema": {"type": "array"}}},
                },
                {
                    "name": "priority",
                    "in": "query",
                    "description": "Jobs of higher priority run first. Default: 0.",
                    "schema": {
                        "type": "integer",
                        "format": "int32",
                        "minimum": -(2**31),
                        "maximum": 2**31 - 1,
                    },
                },
            ],
            "requestBody": {
                "content": {
                    "application/x-www-form-urlencoded": {"schema": _FORM},
                    "multipart/form-data": {"schema": _FORM},
                }
            },
            "responses": _responses(
                "JobQueued", "The job's id.", 400, 401, 408, 413, 415, 429, 500, 501, 503, 504
            ),
        }
    },
}
