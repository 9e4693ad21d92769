"""PgBouncer in front of a PostgreSQL server for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.postgresql import AS_USER, ROLE, PostgresServer, give_away

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
# The name of its socket, in a folder of its own.
PORT = 6432
START_SECONDS = 10.0
# Few connections for transactions, so that those of one client do meet several of them.
POOL_SIZES = {"transaction": 4, "session": 40}
SETTINGS = """
[databases]
* = host={server.folder} port={server.port}
[pgbouncer]
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
"""


@dataclass(frozen=True)
class PgBouncer:
    """A pooler, reached by a unix socket."""

    folder: Path
    mode: str

    def url(self, database: str) -> str:
        url = f"postgresql:///{database}?host={self.folder}&port={PORT}&user={ROLE}"
        return url if self.mode == "session" else f"{url}&pgbouncer=true"


@contextlib.contextmanager
def pooling(server: PostgresServer, mode: str = "transaction") -> Iterator[PgBouncer]:
    """Start PgBouncer, and stop it at the end."""
    binary = shutil.which("pgbouncer", path=PATH)
    if binary is None:
        text = "there is no pgbouncer: install the package"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    folder = Path(tempfile.mkdtemp(prefix="minion-pgb-"))
    try:
        (folder / "users").write_text(f'"{ROLE}" ""\n')
        settings = SETTINGS.format(
            server=server, port=PORT, folder=folder, mode=mode, size=POOL_SIZES[mode]
        )
        (folder / "ini").write_text(settings)
        give_away(folder)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*AS_USER, binary, folder / "ini"], stdout=log, stderr=log, cwd=folder
            )
        try:
            _wait(process, folder)
            yield PgBouncer(folder, mode)
        finally:
            process.terminate()
            process.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (folder / f".s.PGSQL.{PORT}").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PgBouncer did not start:\n{(folder / 'log').read_text()}")
        time.sleep(0.01)
