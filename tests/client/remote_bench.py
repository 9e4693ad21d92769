"""Servers and workers in their own processes, with a proxy that can break their connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from minion_client import Client, JobInfo
from support.processes import KEY, MinionProcess, serve_arguments, until

TASKS = "client.worker_tasks"
MISSING_AFTER = 5.0


class RemoteBench:
    """The data of a server, and the processes that use it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.performed = home / "performed"
        self.processes: list[MinionProcess] = []
        self.clients: list[Client] = []
        self.address = ""

    def server(self, *flags: str, missing_after: float = MISSING_AFTER) -> MinionProcess:
        """Start the server, or restart it at the same address."""
        arguments = serve_arguments(self.home, ("--no-scheduler", "--no-http", *flags))
        arguments += ["--missing-after", str(missing_after), "--repair-interval", "0.5"]
        if self.address:
            arguments += ["--grpc-listen", self.address]
        process = MinionProcess(self.home, *arguments, ready="gRPC")
        self.address = process.grpc
        self.processes.append(process)
        return process

    def worker(self, *flags: str, target: str | None = None) -> MinionProcess:
        process = MinionProcess(
            self.home,
            *("worker", "--target", target or self.address, "--api-key", KEY),
            *("--no-library", "--tasks", TASKS, *flags),
            ready="worker",
        )
        self.processes.append(process)
        return process

    def client(self) -> Client:
        client = Client(self.address, key=KEY)
        self.clients.append(client)
        return client

    def executions(self) -> Counter[int]:
        """Return the number of runs of each job."""
        text = self.performed.read_text() if self.performed.exists() else ""
        return Counter(int(line.split()[0]) for line in text.splitlines())

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for process in self.processes:
            if process.process.poll() is None:
                process.kill()
        assert [t for process in self.processes for t in process.tracebacks()] == []


def finished(client: Client, ids: Iterable[int]) -> list[JobInfo]:
    """Wait until jobs have ended, and return them."""
    wanted = list(ids)

    def all_ended() -> bool:
        stats = client.stats()
        return stats.inactive_jobs == stats.active_jobs == 0

    until(all_ended)
    jobs = list(client.list_jobs(ids=wanted))
    assert len(jobs) == len(wanted)
    return jobs


class Proxy:
    """A TCP proxy to a server, which can break connections.

    Attributes:
        address: Its address.
        connections: Number of connections so far.
        refusals: Number of further connections that it closes immediately.
    """

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.refusals = 0
        self._sockets: set[socket.socket] = set()
        self._deaf: set[tuple[int, str]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Break every connection."""
        for one in list(self._sockets):
            _shut(one)

    def deafen(self, direction: str) -> None:
        """Drop the data of the last connection `up` or `down`; new connections work."""
        self._deaf.add((self.connections, direction))

    def close(self) -> None:
        # close() alone would leave the thread in `accept`.
        _shut(self._listener)
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refusals:
                    self.refusals -= 1
                    client.close()
                    continue
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                self.connections += 1
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets |= {client, server}
                for ends, way in (((client, server), "up"), ((server, client), "down")):
                    pump = threading.Thread(
                        target=self._pump, args=(*ends, (self.connections, way)), daemon=True
                    )
                    pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: tuple[int, str]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if way not in self._deaf:
                    sink.sendall(data)
        _shut(sink)
        source.close()
        self._sockets.discard(source)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
