"""Requests that the OpenAPI description allows and forbids, against a real server."""

from __future__ import annotations

import json
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from minion_rest_bridge.openapi import describe, load_comments
from minion_rest_bridge.rules import load_services
from support.processes import AUTHORIZED, MinionProcess

EXAMPLES = 30

# Not that every allowed request is accepted: the description does not contain all bounds.
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# LANraragi's API ignores unknown parameters; health has no parameters; any text in a query can be
# the name of a lock.
LENIENT = ("POST /api/minion/", "GET /healthz", "GET /v1/locks")

DESCRIPTION = describe(load_services(), load_comments())
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in DESCRIPTION["paths"].items()
    for method in methods
]


@pytest.fixture(scope="module")
def schemathesis() -> ModuleType:
    """The library with its checks, whose import takes a second, only where tests use it."""
    import_module("schemathesis.checks").load_all_checks()
    return import_module("schemathesis")


@pytest.fixture(scope="module")
def schema(schemathesis: Any) -> Any:
    return schemathesis.openapi.from_dict(DESCRIPTION)


@pytest.fixture(scope="module")
def operations(schema: Any) -> dict[str, Any]:
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.label: operation for operation in found}


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label in OPERATIONS
        for mode in ("positive", "negative")
        if (label, mode) != ("GET /healthz", "negative")
    ],
)
def test_every_operation_keeps_to_its_description(
    server: MinionProcess, schemathesis: Any, operations: dict[str, Any], label: str, mode: str
) -> None:
    headers = dict(AUTHORIZED)
    if label.endswith(":watch"):
        # A waiting job would be watched forever.
        headers["X-Server-Timeout"] = "0.2"

    checks = schemathesis.checks.CHECKS.get_by_names(CHECKED)
    strict = schemathesis.checks.CHECKS.get_by_names([*CHECKED, "negative_data_rejection"])
    generation_mode = schemathesis.GenerationMode(mode)
    cases = operations[label].as_strategy(generation_mode=generation_mode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case: Any) -> None:
        # Proto JSON accepts null for every field, as an unset one.
        is_lenient = label.startswith(LENIENT) or "null" in json.dumps(case.body, default=str)
        case.call_and_validate(
            base_url=server.url, headers=headers, checks=checks if is_lenient else strict
        )

    check()


def test_the_description_is_the_one_that_is_served(
    server: MinionProcess, schema: Any, operations: dict[str, Any]
) -> None:
    assert server.get("/openapi.json").json() == schema.raw_schema
    assert list(operations) == OPERATIONS
    assert len(operations) >= 16
