"""What the OpenAPI description allows, and what it does not, against a real server."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from minion_rest_bridge.openapi import describe, load_comments
from minion_rest_bridge.rules import load_services
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from support.processes import AUTHORIZED, MinionProcess

EXAMPLES = 30

# Not that all is accepted which the description allows: it does not tell every bound.
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# LANraragi's passes over parameters that it does not know; health has nothing to violate; whatever
# stands in a query can be the name of a lock.
LENIENT = ("POST /api/minion/", "GET /healthz", "GET /v1/locks")

load_all_checks()
schema = schemathesis.openapi.from_dict(describe(load_services(), load_comments()))
found: list[Any] = list(schema.get_all_operations())
operations = {operation.label: operation for operation in (one.ok() for one in found)}


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label in operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if (label, mode) != ("GET /healthz", GenerationMode.NEGATIVE)
    ],
)
def test_every_operation_keeps_to_its_description(
    server: MinionProcess, label: str, mode: GenerationMode
) -> None:
    headers = dict(AUTHORIZED)
    if label.endswith(":watch"):
        # A job that waits would be watched for ever.
        headers["X-Server-Timeout"] = "0.2"

    names = list(CHECKED)
    if not label.startswith(LENIENT):
        names.append("negative_data_rejection")
    checks = CHECKS.get_by_names(names)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(base_url=server.url, headers=headers, checks=checks)

    check()


def test_the_description_is_the_one_that_is_served(server: MinionProcess) -> None:
    assert server.get("/openapi.json").json() == schema.raw_schema
    assert len(operations) >= 16
