"""Clients and workers over TLS, with a certificate that only these tests know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from client.fake_server import FakeServer
from minion_client._work.grpc_source import GrpcSource
from minion_client.endpoint import Endpoint, Tls
from minion_server.cli.connection import make_endpoint
from minion_server.domain.errors import Invalid

# For localhost, valid for a hundred years, not trusted.
KEY = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgzpNBZzBbT6PHIW+h
bW207kOT2ufBkUzs0EDv/juFs/qhRANCAATIVKFrpAeQpH7t94jZ065W/F8UneTf
KDoVMlub7ymMfo4INYJwl4JTqpfGxVa96eI5Yuyq1wF+s1uz1SmAMhzM
-----END PRIVATE KEY-----
"""
CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBaDCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjQwMTAxMDAwMDAwWhgPMjEyNDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMhUoWukB5Ckfu33
iNnTrlb8XxSd5N8oOhUyW5vvKYx+jgg1gnCXglOql8bFVr3p4jli7KrXAX6zW7PV
KYAyHMyjTjBMMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8E
BTADAQH/MB0GA1UdDgQWBBSL9eLGo71o/zlqitHDetc6FQfnYjAKBggqhkjOPQQD
AgNJADBGAiEAs0FvUtzrGBDmsS+CUNPu5omhQf5Jm1KNZaVR3a/CNaUCIQDD6YuG
kA2ODuLjzx6u3GetVXjS7dZygiwsCRhUvXc+Zw==
-----END CERTIFICATE-----
"""


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    made = FakeServer(grpc.ssl_server_credentials([(KEY, CERTIFICATE)]))
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize(
    "tls", [CERTIFICATE, grpc.ssl_channel_credentials(CERTIFICATE)], ids=["bytes", "credentials"]
)
async def test_a_worker_trusts_a_given_authority(server: FakeServer, tls: Tls) -> None:
    source = GrpcSource(Endpoint(target=server.address, key="k", tls=tls))
    registering = asyncio.create_task(source.register({}))
    call = await server.call()
    await call.hello()
    call.welcome(worker_id=3)
    assert await registering == 3
    await source.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_worker_trusts_no_other_authority(server: FakeServer, tls: bool) -> None:
    source = GrpcSource(Endpoint(target=server.address, key="k", tls=tls))
    registering = asyncio.create_task(source.register({}))
    await asyncio.wait([registering], timeout=0.3)
    assert not registering.done()
    registering.cancel()
    await source.close()


def test_the_flags_say_whom_to_trust(tmp_path: Path) -> None:
    file, junk = tmp_path / "ca.pem", tmp_path / "junk.pem"
    file.write_bytes(CERTIFICATE)
    junk.write_text("nothing")

    def tls(**given: object) -> Tls:
        values = {"target": "localhost:1", "data_dir": tmp_path, "tls": False, "tls_ca": None}
        return make_endpoint(values | given).tls

    assert tls() is False
    assert tls(tls=True) is True
    assert tls(tls_ca=file) == CERTIFICATE
    with pytest.raises(Invalid, match="cannot read"):
        tls(tls_ca=tmp_path / "none")
    with pytest.raises(Invalid, match="expected certificates in PEM"):
        tls(tls_ca=junk)
