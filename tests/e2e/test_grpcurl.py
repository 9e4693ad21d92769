"""grpcurl, which knows only what reflection returns."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import BIN, DEADLINE, KEY, MinionProcess

SERVICE = "minion.v1.MinionService"
Grpcurl = Callable[..., subprocess.CompletedProcess[str]]


def command(address: str, *words: str, data: object = None, key: bool = True) -> list[str | Path]:
    flags = ["-plaintext", "-max-time", "20"]
    if key:
        flags += ["-H", f"authorization: Bearer {KEY}"]
    if data is not None:
        flags += ["-d", json.dumps(data)]
    # Verbs and methods come after the address.
    return [BIN / "grpcurl", *flags, address, *words]


@pytest.fixture
def grpcurl(server: MinionProcess) -> Grpcurl:
    def run(*words: str, data: object = None, key: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(server.grpc, *words, data=data, key=key),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    return run


def response(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (result.returncode, result.stderr) == (0, "")
    message: dict[str, Any] = json.loads(result.stdout)
    return message


def test_services_are_listed_and_described(grpcurl: Grpcurl) -> None:
    listed = grpcurl("list", key=False).stdout.split()
    assert listed == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "minion.v1.AdminService",
        "minion.v1.LockService",
        SERVICE,
        "minion.v1.ScheduleService",
        "minion.v1.WorkerService",
    ]
    methods = grpcurl("list", SERVICE, key=False).stdout.split()
    assert f"{SERVICE}.WatchJob" in methods
    assert len(methods) == 13
    whole = grpcurl("describe", SERVICE, key=False)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "rpc GetJob ( .minion.v1.GetJobRequest ) returns ( .minion.v1.GetJobResponse )" in (
        whole.stdout
    )
    assert "google.api.http" in whole.stdout
    method = grpcurl("describe", f"{SERVICE}.GetJob", key=False)
    assert (method.returncode, method.stderr) == (0, "")
    message = grpcurl("describe", "minion.v1.EnqueueJobRequest", key=False)
    assert "optional int32 priority = 4;" in message.stdout


def test_a_job_is_enqueued_watched_and_shown(
    grpcurl: Grpcurl, server: MinionProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    request = {"task": "hold", "args": [str(gate)], "priority": 5, "notes": {"a": [1, None]}}
    job = response(grpcurl(f"{SERVICE}/EnqueueJob", data=request))["id"]
    watch = command(server.grpc, f"{SERVICE}/WatchJob", data={"id": job})
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        states = []
        for line in watching.stdout:
            name, _, value = line.strip().rstrip(",").partition(": ")
            if name == '"state"':
                states.append(json.loads(value))
                # The lock is held until the test has seen it.
                gate.touch()
    assert watching.returncode == 0
    assert len(states) > 1
    assert states[-1] == "finished"

    status = response(grpcurl(f"{SERVICE}/GetJob", data={"id": job}, key=False))
    notes = {"a": [1, None], "holding": True}
    assert status == {"state": "finished", "task": "hold", "notes": notes}
    detail = response(grpcurl(f"{SERVICE}/GetJobDetail", data={"id": job}))["job"]
    assert (detail["result"], detail["priority"]) == ("released", 5)
    listed = response(grpcurl(f"{SERVICE}/ListJobs", data={"ids": [job], "page_size": 10}))
    assert [one["id"] for one in listed["jobs"]] == [job]
    assert listed["total"] == "1"


def test_without_the_key_all_but_the_state_is_refused(grpcurl: Grpcurl) -> None:
    for method in ("GetJobDetail", "EnqueueJob", "ListJobs", "WatchJob"):
        result = grpcurl(f"{SERVICE}/{method}", key=False)
        assert result.returncode == 64 + 16
        assert "Code: Unauthenticated" in result.stderr
        assert "KEY_REQUIRED" in result.stderr
    missing = grpcurl(f"{SERVICE}/GetJob", data={"id": 999_999}, key=False)
    assert "Code: NotFound" in missing.stderr
    assert '"reason":"JOB_NOT_FOUND"' in missing.stderr


def test_health_is_checked_and_watched(grpcurl: Grpcurl) -> None:
    service = "grpc.health.v1.Health"
    asked = response(grpcurl(f"{service}/Check", data={"service": SERVICE}, key=False))
    assert asked == {"status": "SERVING"}
