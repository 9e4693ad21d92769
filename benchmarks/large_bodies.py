"""The time that other clients wait while a server handles messages of 4 MiB over REST.

    python benchmarks/large_bodies.py [--bridge]

`--bridge` puts `minion bridge` in front, over the network. For each body: its status, how long it
took, and the longest time that another client waited for `GET /healthz`, in milliseconds.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.processes import AUTHORIZED, MinionProcess, serve_arguments

MIB = 2**20
FORM = "application/x-www-form-urlencoded"


def filled(head: bytes, unit: bytes, tail: bytes, size: int = 4 * MIB) -> bytes:
    """Return a body of a size that repeats a unit, separated by commas."""
    count = (size - len(head) - len(tail)) // (len(unit) + 1)
    return head + b",".join([unit] * count) + tail


BODIES = {
    "args: [1, ...]": ("/v1/jobs", filled(b'{"task":"x","args":[', b"1", b"]}")),
    "args: [[], ...]": ("/v1/jobs", filled(b'{"task":"x","args":[', b"[]", b"]}")),
    "args: [true, ...]": ("/v1/jobs", filled(b'{"task":"x","args":[', b"true", b"]}")),
    "args: one string": ("/v1/jobs", b'{"task":"x","args":["%b"]}' % (b"y" * (4 * MIB - 100))),
    "args: 3 MiB of message": ("/v1/jobs", filled(b'{"task":"x","args":[', b"12345", b"]}", MIB)),
    "parents: [1, ...]": ("/v1/jobs", filled(b'{"task":"x","parents":[', b"1", b"]}")),
    "requests: [{}, ...]": ("/v1/jobs:batchEnqueue", filled(b'{"requests":[', b"{}", b"]}")),
    "form: args=[1, ...]": ("/api/minion/x/queue", filled(b"args=[", b"1", b"]")),
    "form: 2 million parts": ("/api/minion/x/queue", b"a&" * (2 * MIB)),
}


class Others:
    """Another client, which requests the health repeatedly."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self._stop = threading.Event()
        self.waits: list[float] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address)
        while not self._stop.is_set():
            before = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            self.waits.append(time.perf_counter() - before)

    @contextmanager
    def asking(self) -> Iterator[None]:
        self._stop.clear()
        self.waits = []
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def measure(
    server: MinionProcess, name: str, method: str, path: str, body: bytes | None, **headers: str
) -> None:
    others = Others(server.url)
    with others.asking():
        before = time.perf_counter()
        response = server.client.request(method, server.url + path, content=body, headers=headers)
        took = time.perf_counter() - before
    longest = max(others.waits)
    figures = f"{took * 1000:8.0f} {longest * 1000:8.1f}  {len(others.waits)}"
    print(f"{name:32} {response.status_code} {figures}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bridge", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        server = MinionProcess(home, *serve_arguments(home, ("--no-scheduler",)))
        front = server
        if arguments.bridge:
            front = MinionProcess(
                home, "bridge", "--target", server.grpc, "--http-listen", "127.0.0.1:0"
            )
        print(f"{'':32} status  took ms  others ms  others' requests")
        for name, (path, body) in BODIES.items():
            kind = FORM if path.startswith("/api/") else "application/json"
            measure(front, f"{name}, no key", "POST", path, body, **{"Content-Type": kind})
            measure(
                front, f"{name}, key", "POST", path, body, **AUTHORIZED, **{"Content-Type": kind}
            )
        for path in ("/v1/jobs", "/v1/jobs/2", "/api/minion/2/detail"):
            measure(front, f"GET {path}", "GET", path, None, **AUTHORIZED)
        if front is not server:
            front.stop()
        server.stop()


if __name__ == "__main__":
    main()
