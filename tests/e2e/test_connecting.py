"""Connections of commands to a server: proxies, TLS, and errors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from client.test_tls import CERTIFICATE
from client.test_tls import KEY as PRIVATE_KEY
from support.processes import AUTHORIZED, KEY, MinionProcess, minion
from support.tls import TlsProxy

# Nobody listens there.
PROXIES = {
    name: "http://127.0.0.1:9"
    for one in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    for name in (one, one.upper())
} | {"no_proxy": "", "NO_PROXY": "", "no_grpc_proxy": ""}
Serve = Callable[..., MinionProcess]


@pytest.fixture(scope="module")
def tls(
    server: MinionProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The address of a TLS proxy, and its certificate."""
    directory = tmp_path_factory.mktemp("tls")
    (directory / "both.pem").write_bytes(PRIVATE_KEY + CERTIFICATE)
    (directory / "ca.pem").write_bytes(CERTIFICATE)
    with TlsProxy(server.grpc, directory / "both.pem") as proxy:
        yield f"127.0.0.1:{proxy.port}", directory / "ca.pem"


def bridged(start: Serve, *arguments: str, **env: str) -> httpx.Response:
    bridge = start("bridge", "--http-listen", "127.0.0.1:0", *arguments, **env)
    return httpx.get(f"{bridge.url}/v1/stats", headers=AUTHORIZED, trust_env=False)


def test_commands_use_no_proxy_for_this_machine(
    server: MinionProcess, home: Path, start: Serve
) -> None:
    where = {"MINION_TARGET": server.grpc, "MINION_API_KEY": KEY} | PROXIES
    listed = minion("job", "list", home=home, **where)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert bridged(start, **where).status_code == 200
    worker = start("worker", "--no-library", "--queues", "proxied", ready="worker", **where)
    assert worker.stop() == 0


def test_every_command_speaks_tls(home: Path, start: Serve, tls: tuple[str, Path]) -> None:
    target, authority = tls
    where = {"MINION_TARGET": target, "MINION_API_KEY": KEY, "MINION_TLS_CA": str(authority)}
    for command in (("job", "list"), ("stats",), ("lock", "list"), ("admin", "workers")):
        ran = minion(*command, home=home, **where)
        assert (ran.returncode, ran.stderr) == (0, "")
    assert bridged(start, **where).status_code == 200
    worker = start("worker", "--no-library", "--queues", "tls", ready="worker", **where)
    assert worker.stop() == 0


def test_a_port_that_speaks_something_else_is_named(
    server: MinionProcess, home: Path, tls: tuple[str, Path]
) -> None:
    target, authority = tls
    http = server.url.removeprefix("http://")

    def refused(*arguments: str) -> str:
        ran = minion("job", "list", "--api-key", KEY, *arguments, home=home)
        assert ran.returncode == 2
        assert "Traceback" not in ran.stderr
        return ran.stderr

    assert "(does that port need TLS?)" in refused("--target", target)
    assert "is not trusted" in refused("--target", target, "--tls")
    assert "does not speak TLS" in refused("--target", server.grpc, "--tls-ca", str(authority))
    assert "does not speak gRPC" in refused("--target", http)
    assert "does not speak TLS" in refused("--target", http, "--tls")


@pytest.mark.parametrize("command", [("job", "list"), ("worker",), ("bridge",)])
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://127.0.0.1:1", "expected HOST:PORT, got 'http://127.0.0.1:1'"),
        ("127.0.0.1:99999", "expected HOST:PORT, with a port in 0..65535"),
        ("a b:1", "expected HOST:PORT"),
        ("", "expected a text that is not empty"),
    ],
)
def test_what_is_no_address_is_refused_by_name(
    home: Path, command: tuple[str, ...], target: str, expected: str
) -> None:
    ran = minion(*command, "--target", target, home=home)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"minion: --target: {expected}")


def test_a_key_that_crosses_a_network_in_clear_is_warned_of(home: Path, start: Serve) -> None:
    target = "queue.invalid:50051"
    ran = minion("job", "list", "--target", target, "--api-key", KEY, home=home)
    assert f"the key is sent to {target} unencrypted: use TLS" in ran.stderr
    bridge = start("bridge", "--target", target, "--http-listen", "127.0.0.1:0")
    assert f"callers' keys are sent to {target} unencrypted" in bridge.log.read_text()


def test_a_commands_status_is_kept_when_the_server_is_away_at_the_end(
    home: Path, serve: Serve
) -> None:
    server = serve("--no-scheduler")
    script = f"kill -KILL {server.process.pid}; exit 5"
    ran: subprocess.CompletedProcess[str] = minion(
        *("lock", "run", "backup", "--", "sh", "-c", script),
        home=home,
        MINION_TARGET=server.grpc,
        MINION_API_KEY=KEY,
    )
    assert ran.returncode == 5
    assert "minion: the lock 'backup' is left to expire: cannot reach the server at" in ran.stderr
    server.ended()


@pytest.mark.parametrize(
    ("arguments", "env", "expected"),
    [
        ((), {}, "{home}/data/library"),
        ((), {"MINION_LIBRARY_DIR": "{home}/comics"}, "{home}/comics"),
        (("--library-dir", "{home}/other"), {}, "{home}/other"),
        (("--no-library",), {"MINION_LIBRARY_DIR": "{home}/comics"}, "{home}/comics"),
    ],
)
def test_a_job_in_the_foreground_works_in_the_library_of_the_settings(
    home: Path, serve: Serve, arguments: tuple[str, ...], env: dict[str, str], expected: str
) -> None:
    server = serve("--no-scheduler")
    (home / "shelf.py").write_text(
        "import os\nfrom minion_client import task\n\n\n"
        "@task\ndef where(job):\n    return os.environ['MINION_LIBRARY_DIR']\n"
    )
    ran = minion(
        *("job", "run", str(server.enqueue("where")), "--tasks", "shelf"),
        *(one.format(home=home) for one in arguments),
        home=home,
        MINION_TARGET=server.grpc,
        MINION_API_KEY=KEY,
        MINION_DATA_DIR=str(home / "data"),
        **{name: value.format(home=home) for name, value in env.items()},
    )
    assert (ran.returncode, ran.stdout) == (0, f'"{expected.format(home=home)}"\n')
