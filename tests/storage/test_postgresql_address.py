"""URLs of PostgreSQL databases: read as by libpq, or refused with the name of the wrong part."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from minion_server.domain.errors import Conflict, Invalid
from minion_server.storage.postgresql import PostgresStorage, PostgresTransfer
from minion_server.storage.postgresql.address import parse_address
from support.postgresql import PostgresServer

SECRET = "s3cr3t"


def test_parts_of_a_url() -> None:
    address = parse_address("postgresql://u:p@h:5/d?sslmode=require&pgbouncer=true&connections=3")
    assert (address.hosts, address.user, address.password) == ([("h", 5)], "u", "p")
    assert (address.database, address.tls) == ("d", {"sslmode": "require"})
    assert (address.pooler, address.connections) == (True, 3)
    address = parse_address("postgres://")
    assert (address.hosts, address.user, address.database) == ([(None, None)], None, None)
    assert parse_address("postgresql:///d?host=/run").hosts == [("/run", None)]
    assert parse_address("postgresql://%2Frun/d").hosts == [("/run", None)]
    assert parse_address("postgresql:///d?search_path=a,b").settings == {"search_path": "a,b"}
    assert parse_address("postgresql:///?dbname=d&user=u&password=p%26").password == "p&"


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("a,b:2", [("a", None), ("b", 2)]),
        ("[::1]:5,[fe80::2]", [("::1", 5), ("fe80::2", None)]),
        ("/d?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("/d?host=a,b&port=7", [("a", 7), ("b", 7)]),
        (":5433", [(None, 5433)]),
    ],
)
def test_hosts(hosts: str, expected: list[tuple[str | None, int | None]]) -> None:
    assert parse_address(f"postgresql://{hosts}").hosts == expected


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("a[b", "a[b"),
        ("a]b", "a]b"),
        ("a+b", "a+b"),
        ("a?b", "a?b"),
        ("a#b", "a#b"),
        ("a:b", "a:b"),
        ("a&b=c", "a&b=c"),
        ("a%40b%2Fc%25", "a@b/c%"),
        ("%C3%BC ", "ü "),
        ("", None),
    ],
)
def test_passwords(written: str, password: str | None) -> None:
    address = parse_address(f"postgresql://u:{written}@h/d?sslmode=disable")
    assert (address.user, address.password, address.database) == ("u", password, "d")
    assert address.hosts == [("h", None)]
    assert address.place == "h/d"


@pytest.mark.parametrize(
    "parameters",
    [
        "application_name=x",
        "channel_binding=prefer",
        "client_encoding=UTF8",
        "connect_timeout=3",
        "fallback_application_name=x",
        "gssencmode=disable",
        "keepalives=1&keepalives_idle=5&keepalives_interval=1&keepalives_count=3",
        "krbsrvname=postgres",
        "options=-c%20search_path%3Dminion",
        "ssl=true",
        "sslmode=verify-full&sslrootcert=system",
        "ssl_min_protocol_version=TLSv1.3",
        "target_session_attrs=read-write",
        "tcp_user_timeout=5",
    ],
)
def test_what_hosters_write_is_read(parameters: str) -> None:
    assert parse_address(f"postgres://u:p@h/d?{parameters}").database == "d"


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("mysql://u:s3cr3t@h/d", "must begin with"),
        ("postgresql:h", "must begin with"),
        ("postgresql://u:s3cr3t%@h/d", "password: .* %25"),
        ("postgresql://u:s3cr3t%zz@h/d", "password: "),
        ("postgresql://u:s3cr3t@x@h/d", "password.* %40"),
        ("postgresql://u:a/s3cr3t@h/d", "password.* %2F"),
        ("postgresql://u:s3cr3t", "port: "),
        ("postgresql://u:p@[::1/d", "host: "),
        ("postgresql://h:70000/d", "port: .*'70000'"),
        ("postgresql://a,b/d?port=1,2,3", "port: "),
        ("postgresql://h/d?password=a&s3cr3t", "parameters: .* %26"),
        ("postgresql://h/d?password=s3cr3t=x", "password: .* %3D"),
        ("postgresql://h/d?connections=0", "connections: .*1..1000"),
        ("postgresql://h/d?connections=x", "connections: "),
        ("postgresql://h/d?pgbouncer=perhaps", "pgbouncer: "),
        ("postgresql://h/d?connect_timeout=soon", "connect_timeout: "),
        ("postgresql://h/d?sslmode=no-verify", "sslmode: .*verify-full"),
        ("postgresql://h/d?sslmode=require&sslrootcert=system", "sslmode: .*verify-full"),
        ("postgresql://h/d?sslrootcert=/nowhere/ca.pem", "sslrootcert: .*No such file"),
        ("postgresql://h/d?ssl=perhaps", "ssl: "),
        ("postgresql://h/d?ssl_min_protocol_version=9", "ssl_min_protocol_version: .*TLSv1.3"),
        ("postgresql://h/d?gsslib=x", "gsslib: "),
        ("postgresql://h/d?service=s&servicefile=/nowhere", "service: .*No such file"),
        ("postgresql://h/d?channel_binding=require", "channel_binding: .*sslmode=verify-full"),
        ("postgresql://h/d?gssencmode=require", "gssencmode: "),
        ("postgresql://h/d?hostaddr=127.0.0.1", "hostaddr: "),
        ("postgresql://h/d?load_balance_hosts=random", "load_balance_hosts: "),
        ("postgresql://h/d?target_session_attrs=best", "target_session_attrs: .*read-write"),
        ("postgresql://h/d?client_encoding=LATIN1", "client_encoding: "),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_without_a_secret(url: str, names: str) -> None:
    with pytest.raises(Invalid, match=names) as refused:
        parse_address(url)
    assert SECRET not in str(refused.value)
    assert refused.value.field == "--database"


def test_secrets_are_in_no_text() -> None:
    address = parse_address(f"postgresql://u:{SECRET}@h/d?sslpassword={SECRET}")
    assert SECRET not in repr(address)
    assert SECRET not in address.place


async def test_the_next_host_is_tried_and_the_time_is_that_of_each(
    postgresql: PostgresServer,
) -> None:
    name = await postgresql.make_database()
    # Nobody listens on the first; the second is a folder without a socket.
    url = f"postgresql://minion@127.0.0.1:1,%2Fnowhere,127.0.0.1:{postgresql.port}/{name}"
    storage = PostgresStorage(f"{url}?target_session_attrs=read-write&connect_timeout=5")
    await storage.open()
    await storage.close()
    with pytest.raises(Conflict, match='unrecognized configuration parameter "schema"'):
        await PostgresStorage(f"{url}?schema=public").open()
    with pytest.raises(Conflict, match="does not exist"):
        await PostgresTransfer(f"{url}x").status()
    with pytest.raises(Conflict, match=r"role .* does not exist"):
        await PostgresStorage(postgresql.url(name, user="nobody_here")).open()
    await postgresql.drop_database(name)


async def test_settings_are_the_sessions(postgresql: PostgresServer) -> None:
    name = await postgresql.make_database()
    url = postgresql.url(name)
    storage = PostgresStorage(f"{url}&application_name=mine&options=-c%20statement_timeout%3D9s")
    await storage.open()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mine'"
    )
    await connection.close()
    await storage.close()
    await postgresql.drop_database(name)


def test_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("none")
    with pytest.raises(Invalid, match=r"sslrootcert: expected certificates in .*CERTIFICATE"):
        parse_address(f"postgresql://h/d?sslmode=verify-ca&sslrootcert={path}")


def test_certificates_without_their_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_text("none")
    with pytest.raises(Invalid, match="sslcert, sslkey: expected a certificate and its key"):
        parse_address(f"postgresql://h/d?sslcert={path}&sslkey={path}&sslpassword={SECRET}")


def test_a_service_is_read_and_the_url_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "services"
    path.write_text("# ours\n[queue]\nhost=a,b\nport=7\nuser=u\npassword=50%;#\ndbname=d\n")
    address = parse_address(f"postgresql:///other?service=queue&servicefile={path}")
    assert address.hosts == [("a", 7), ("b", 7)]
    assert (address.user, address.password, address.database) == ("u", "50%;#", "other")
    with pytest.raises(Invalid, match=r"service: expected one of those in .*'nope'"):
        parse_address(f"postgresql:///?service=nope&servicefile={path}")
    path.write_text(f"password={SECRET}")
    with pytest.raises(Invalid, match="service: expected a file of services") as refused:
        parse_address(f"postgresql:///?service=queue&servicefile={path}")
    assert SECRET not in str(refused.value)
