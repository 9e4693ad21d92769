"""The address of a database: a URL that is parsed as by libpq.

The driver would parse parts of it differently, ignore parameters that it does not support, and not
name the parameter in its errors.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from minion_server.domain.errors import Invalid

SCHEMES = ("postgresql", "postgres")
FIELD = "--database"
DEFAULT_CONNECTIONS = 8
MAX_CONNECTIONS = 1_000
DEFAULT_CONNECT_SECONDS = 10.0
LEAST_CONNECT_SECONDS = 2.0
"""For one host: libpq also uses 2 in place of 1."""
SERVICE_FILE = "~/.pg_service.conf"
MAX_SHOWN = 60

_YES = ("true", "1", "yes", "on")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_CHOICES: Mapping[str, Sequence[str]] = {
    "gsslib": ("gssapi", "sspi"),
    "pgbouncer": (*_YES, "false", "0", "no", "off"),
    # JDBC's parameter; libpq supports only this value of it.
    "ssl": ("true",),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": (
        "any", "read-write", "read-only", "primary", "standby", "prefer-standby",
    ),
}  # fmt: skip
_CERTIFICATES = ("sslrootcert", "sslcrl")
_FILES = ("sslcert", "sslkey", "passfile", *_CERTIFICATES)
_TLS = (
    "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
)  # fmt: skip
# Parameters that are arguments of the driver with the same names.
_DRIVER = ("passfile", "krbsrvname", "gsslib")
# Dead connections are found by statements that time out; the other parameters have no effect in
# libpq either, or set a default that the server sets itself.
_IGNORED = (
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "sslcompression", "fallback_application_name",
)  # fmt: skip

# Parameters that the driver does not support: values that need no support, and the alternative.
_ONLY: Mapping[str, tuple[Sequence[str], str]] = {
    "channel_binding": (("disable", "prefer"), "use sslmode=verify-full instead"),
    "client_encoding": (("UTF8", "utf8", "UTF-8", "utf-8", "auto"), "leave it out"),
    "gssdelegation": (("0",), "leave it out"),
    "gssencmode": (("disable", "prefer"), "use sslmode=require instead"),
    "hostaddr": ((), "name it as host"),
    "load_balance_hosts": (("disable",), "leave it out"),
    "max_protocol_version": (("3.0", "latest"), "leave it out"),
    "min_protocol_version": (("3.0",), "leave it out"),
    "replication": (("0", "false", "off", "no"), "leave it out"),
    "require_auth": ((), "leave it out"),
    "requirepeer": ((), "leave it out"),
    "scram_client_key": ((), "use a password"),
    "scram_server_key": ((), "use a password"),
    "sslcertmode": (("allow", "disable"), "leave it out"),
    "sslcrldir": ((), "use sslcrl"),
    "sslkeylogfile": ((), "set the variable SSLKEYLOGFILE"),
    "sslsni": (("1",), "leave it out"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address of a database. None leaves a value to the environment.

    Attributes:
        hosts: Hosts, or folders of sockets, with their ports, in the order to try them.
        user: The user.
        password: The password.
        database: The name of the database.
        tls: Parameters of TLS, by libpq's names.
        driver: Other parameters that the driver supports, by libpq's names.
        settings: Settings of the session.
        session_attrs: Kinds of hosts to look for; each is tried at all hosts before the next.
        connect_seconds: Time to try each host for.
        pooler: Whether connections pass a pooler that may give each transaction another session,
            so that neither prepared statements nor LISTEN can be used.
        connections: Largest number of connections.
    """

    hosts: Sequence[tuple[str | None, int | None]]
    user: str | None
    password: str | None = field(repr=False)
    database: str | None
    tls: Mapping[str, str] = field(repr=False)
    driver: Mapping[str, str]
    settings: Mapping[str, str]
    session_attrs: Sequence[str]
    connect_seconds: float
    pooler: bool
    connections: int

    @property
    def place(self) -> str:
        """Hosts and name of the database for messages, without user and password."""
        hosts = [
            (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
            for host, port in self.hosts
            if host is not None
        ]
        return f"{','.join(hosts) or 'the local socket'}/{self.database or ''}"


def parse_address(url: str) -> Address:
    """Parse a URL as libpq does, with two more parameters: `pgbouncer` and `connections`.

    Raises:
        Invalid: The URL is not valid. The message names the parameter, and contains no secret.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in SCHEMES:
        raise Invalid(FIELD, f"must begin with {SCHEMES[0]}://")
    # A password before the @ may contain a ?.
    user = re.match(r"([^/?@:]*)(?::([^/@]*))?@", rest)
    rest, _, query = rest[user.end() if user else 0 :].partition("?")
    hosts, _, database = rest.partition("/")
    if "@" in rest:
        raise Invalid(FIELD, "user, password or name: expected no @ but as %40, no / but as %2F")
    pairs = [_split_host(host) for host in hosts.split(",")]
    values = {
        "host": ",".join(host for host, _ in pairs),
        "port": ",".join(port for _, port in pairs) if any(port for _, port in pairs) else "",
        "user": _decode("user", user[1] if user else ""),
        "password": _decode("password", user[2] or "" if user else ""),
        "dbname": _decode("the name of the database", database),
        **_read_query(query),
    }
    return _make(_read_service({name: value for name, value in values.items() if value}))


def _split_host(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^\[:][^:]*)?)(?::(.*))?", text)
    if found is None:
        raise Invalid(FIELD, "host: expected [IPv6 address]:port, or %5B for a [")
    return _decode("host", found[1] or found[2] or ""), _decode("port", found[3] or "")


def _read_query(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, found, value = part.partition("=")
        name = _decode("parameter", name)
        if not found or not name:
            raise Invalid(FIELD, "parameters: expected name=value&name=value, with %26 for a &")
        if "=" in value:
            raise Invalid(FIELD, f"{name}: expected no = within the value but as %3D")
        values[name] = _decode(name, value)
    return values


def _decode(name: str, text: str) -> str:
    """Decode a part, which no error message shows, since it may be a secret."""
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", text):
        raise Invalid(FIELD, f"{name}: expected two hexadecimal digits after a %, as %25 for a %")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Invalid(FIELD, f"{name}: expected UTF-8 behind the %XX") from None


def _read_service(values: dict[str, str]) -> dict[str, str]:
    """Add the parameters of a service in libpq's file; those of the URL take precedence."""
    name = values.pop("service", None)
    file = values.pop("servicefile", None) or os.environ.get("PGSERVICEFILE") or SERVICE_FILE
    if name is None:
        return values
    parser = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    try:
        parser.read_string(Path(file).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(FIELD, f"service: cannot read {_shown(file)}: {error.strerror}") from None
    except (ConfigError, UnicodeDecodeError):
        raise Invalid(FIELD, f"service: expected a file of services, got {_shown(file)}") from None
    if not parser.has_section(name):
        raise Invalid(FIELD, f"service: expected one of those in {file}, got {_shown(name)}")
    return {**parser[name], **values}


def _make(values: dict[str, str]) -> Address:
    """Return the address for libpq's parameters; unknown ones are settings of the session."""
    _check_values(values)
    _check_files(values)
    pop = values.pop
    attrs = pop("target_session_attrs", "any")
    hosts = _pair_hosts(pop("host", ""), pop("port", ""))
    connections = _number("connections", pop("connections", None), 1, MAX_CONNECTIONS)
    return Address(
        hosts=hosts,
        user=pop("user", None),
        password=pop("password", None),
        database=pop("dbname", None),
        tls={name: pop(name) for name in _TLS if name in values},
        driver={name: pop(name) for name in _DRIVER if name in values},
        connect_seconds=_connect_seconds(pop("connect_timeout", "0"), len(hosts)),
        session_attrs=("standby", "any") if attrs == "prefer-standby" else (attrs,),
        pooler=pop("pgbouncer", "false") in _YES,
        connections=DEFAULT_CONNECTIONS if connections is None else connections,
        settings=values,
    )


def _check_values(values: dict[str, str]) -> None:
    """Check for invalid and unsupported values, and remove parameters without effect."""
    if "pgbouncer" in values:
        values["pgbouncer"] = values["pgbouncer"].lower()
    for name, choices in _CHOICES.items():
        if name in values and values[name] not in choices:
            expected = ", ".join(choices)
            raise Invalid(FIELD, f"{name}: expected one of {expected}, got {_shown(values[name])}")
    for name, (allowed, instead) in _ONLY.items():
        value = values.pop(name, None)
        if value is not None and value not in allowed:
            expected = " or ".join(allowed) or "none"
            shown = "a value" if name.startswith("scram") else _shown(value)
            raise Invalid(
                FIELD,
                f"{name}: expected {expected}, got {shown}, which is not supported: {instead}",
            )
    for name in _IGNORED:
        values.pop(name, None)
    if values.pop("ssl", None):
        values.setdefault("sslmode", "require")


def _check_files(values: dict[str, str]) -> None:
    system = values.get("sslrootcert") == "system"
    if system and (mode := values.setdefault("sslmode", "verify-full")) != "verify-full":
        raise Invalid(FIELD, f"sslmode: expected verify-full with sslrootcert=system, got {mode}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in _FILES:
        path = values.get(name)
        if path is None or (name == "sslrootcert" and system):
            continue
        try:
            with Path(path).open("rb"):
                pass
            if name in _CERTIFICATES:
                context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise Invalid(
                FIELD, f"{name}: expected certificates in {_shown(path)}: {error.reason}"
            ) from None
        except OSError as error:
            raise Invalid(FIELD, f"{name}: cannot read {_shown(path)}: {error.strerror}") from None
    if {"sslcert", "sslkey"} <= values.keys():
        password = values.get("sslpassword", "")
        try:
            context.load_cert_chain(values["sslcert"], values["sslkey"], lambda: password)
        except ssl.SSLError as error:
            raise Invalid(
                FIELD, f"sslcert, sslkey: expected a certificate and its key: {error.reason}"
            ) from None


def _pair_hosts(hosts: str, ports: str) -> list[tuple[str | None, int | None]]:
    names = [host or None for host in hosts.split(",")]
    numbers = [_number("port", port or None, 1, 65_535) for port in ports.split(",")]
    if len(numbers) == 1:
        numbers *= len(names)
    if len(numbers) != len(names):
        raise Invalid(FIELD, f"port: expected one, or one for each of {len(names)} hosts")
    return list(zip(names, numbers, strict=True))


def _connect_seconds(text: str, hosts: int) -> float:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", text):
        raise Invalid(FIELD, f"connect_timeout: expected whole seconds, got {_shown(text)}")
    # Without a limit, several hosts share the default, so that the last is tried in time.
    seconds = float(text) if int(text) > 0 else DEFAULT_CONNECT_SECONDS / hosts
    return max(seconds, LEAST_CONNECT_SECONDS)


def _number(name: str, text: str | None, least: int, most: int) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        # A text that is not a number may be a part of a password.
        shown = f", got {_shown(text)}" if text.isdecimal() else ""
        raise Invalid(FIELD, f"{name}: expected {least}..{most}{shown}")
    return int(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "...")
