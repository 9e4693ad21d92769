from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_server.library.archive import Format, is_archive_name
from minion_server.library.download.file_name import LONGEST, disposition_name, file_name
from minion_server.library.download.network import is_public
from minion_server.library.download.url import Url
from minion_server.library.errors import RefusedError


@pytest.mark.parametrize(
    ("text", "shown", "netloc"),
    [
        ("http://example.com", "http://example.com/", "example.com"),
        (" HTTPS://EXAMPLE.com:443/A b?c=1#d\n", "https://example.com/A%20b", "example.com"),
        ("http://example.com.:8080//x", "http://example.com:8080//x", "example.com:8080"),
        ("http://u:secret@h/x?token=secret", "http://h/x", "h"),
        ("http://b\u00fccher.example/\u00fc", "http://xn--bcher-kva.example/%C3%BC",
         "xn--bcher-kva.example"),
        ("http://[2001:DB8::1]:81/", "http://[2001:db8::1]:81/", "[2001:db8::1]:81"),
        ("http://h/%2e%2E/%zz", "http://h/%2e%2E/%zz", "h"),
        ("http://\uff11\uff12\uff17.0.0.1/", "http://127.0.0.1/", "127.0.0.1"),
    ],
)  # fmt: skip
def test_urls_are_shown_without_secrets(text: str, shown: str, netloc: str) -> None:
    url = Url.parse(text)
    assert (str(url), url.netloc) == (shown, netloc)
    assert "secret" not in f"{url}{url!r}"


def test_user_and_password_become_a_header() -> None:
    assert Url.parse("http://me:p%40ss@h/").authorization == "Basic bWU6cEBzcw=="
    assert Url.parse("http://h/@a:b").authorization is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "string"),
        (5, "string"),
        (b"http://h/", "string"),
        ("", "begin with http"),
        ("h/a.zip", "begin with http"),
        ("ftp://h/a.zip", "begin with http"),
        ("file:///etc/passwd", "begin with http"),
        ("javascript:alert(1)", "begin with http"),
        ("//h/a.zip", "begin with http"),
        ("http:///a.zip", "host is not valid"),
        ("http://", "host is not valid"),
        ("http://a..b/", "host is not valid"),
        ("http://a b/", "host is not valid"),
        ("http://a%00b/", "host is not valid"),
        ("http://a\\b/", "host is not valid"),
        ("http://[::1::2]/", "not valid"),
        ("http://[::1/", "not valid"),
        ("http://h:0/", "not valid"),
        ("http://h:65536/", "not valid"),
        ("http://h:x/", "not valid"),
        ("http://u:secret@h:x/", "not valid"),
        ("http://" + "a" * 64 + ".b/", "host is not valid"),
        ("http://" + "a.b" * 100 + "/", "host is not valid"),
        ("http://h/\x00", "control character"),
        ("http://h/a\r\nHost: b", "control character"),
        ("http://h/\ud800", "control character"),
        ("http://h/" + "a" * 9000, "longer than 8000"),
    ],
)
def test_other_urls_are_refused(value: Any, text: str) -> None:
    with pytest.raises(RefusedError, match=text) as caught:
        Url.parse(value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "location", "joined", "keeps"),
    [
        ("http://u:p@h/a/b?c", b"d?e", "http://h/a/d", True),
        ("http://u:p@h/a/b", b"/d", "http://h/d", True),
        ("http://u:p@h/a", b"https://h/a", "https://h/a", True),
        ("http://u:p@h/a", b"http://H:80/b", "http://h/b", True),
        ("http://u:p@h/a", b"//other/b", "http://other/b", False),
        ("http://u:p@h/a", b"http://h:81/b", "http://h:81/b", False),
        ("http://u:p@h:81/a", b"https://h/b", "https://h/b", False),
        ("https://u:p@h/a", b"http://h/a", "http://h/a", False),
        ("http://h/a", b"/\xc3\xbc \xe2\x82\xac", "http://h/%C3%BC%20%E2%82%AC", False),
        ("http://h/a", b"/\xfc", "http://h/%C3%BC", False),
    ],
)
def test_redirects_keep_secrets_at_one_origin(
    base: str, location: bytes, joined: str, keeps: bool
) -> None:
    url = Url.parse(base).join(location)
    assert (str(url), url.authorization is not None) == (joined, keeps)


def test_redirects_lead_to_no_other_scheme() -> None:
    for location in (
        b"file:///etc/passwd",
        b"gopher://h/",
        b"data:,x",
        b"http://[",
        b"http://a b/",
    ):
        with pytest.raises(RefusedError, match=r"^The redirect is refused\. The URL"):
            Url.parse("http://h/").join(location)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"],
)
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1"),
        *("127.8.9.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8"),
        *("192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        "168.63.129.16",
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1"),
        *("2001:db8::1", "2002:7f00:1::", "2002:101:101::1", "3fff::1", "5f00::1", "fc00::1"),
        *("fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1"),
    ],
)
def test_other_addresses(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"attachment", None),
        (b"", None),
        (b'attachment; filename="a b.zip"', "a b.zip"),
        (b"attachment; filename=a.zip", "a.zip"),
        (b"attachment;FileName = a.zip ;x=y", "a.zip"),
        (b"filename=a.zip", "a.zip"),
        (b'attachment; filename="a\\"b;c.zip"', 'a"b;c.zip'),
        (b"attachment; filename=\"x.zip\"; filename*=UTF-8''%e2%82%ac.zip", "\u20ac.zip"),
        (b"attachment; filename*=utf-8'en'%e2%82%ac.zip; filename=x.zip", "\u20ac.zip"),
        (b"attachment; filename*=iso-8859-1''%a3.zip", "\u00a3.zip"),
        (b"attachment; filename*=\"UTF-8''a.zip\"", "a.zip"),
        (b"attachment; filename*=utf-16''%00a; filename=b.zip", "b.zip"),
        (b"attachment; filename*=broken; filename=b.zip", "b.zip"),
        (b"attachment; filename*=UTF-8''%ff.zip", "\ufffd.zip"),
        (b'attachment; name="x; filename=y.zip"; filename=z.zip', "z.zip"),
        (b'attachment; filename="\xe6\xbc\xab.zip"', "\u6f2b.zip"),
        (b'attachment; filename="\xfc.zip"', "\u00fc.zip"),
        (b'attachment; filename="unclosed.zip', "unclosed.zip"),
        (b'attachment; filename=""', ""),
    ],
)
def test_names_of_content_disposition(header: bytes, name: str | None) -> None:
    assert disposition_name(header) == name


@pytest.mark.parametrize(
    ("suggested_name", "content_type", "name"),
    [
        ("a.zip", "", "a.zip"),
        ("A.CBZ", "application/zip", "A.CBZ"),
        ("\u6f2b\u753b \u20ac.zip", "", "\u6f2b\u753b \u20ac.zip"),
        ("Fate/Stay: 1?.zip", "", "FateStay 1.zip"),
        ("../../etc/passwd", "", "etcpasswd.zip"),
        ("C:\\a\\b.zip", "", "Cab.zip"),
        ("a\x00b\nc\x7f\x85.zip", "", "abc.zip"),
        ("evil\u202epiz.cbz", "", "evilpiz.cbz"),
        (".hidden.zip", "", "hidden.zip"),
        (" a .zip ", "", "a.zip"),
        ("", "", "download.zip"),
        ("...", "", "download.zip"),
        ("con.zip", "", "_con.zip"),
        ("NUL", "", "_NUL.zip"),
        ("com1 .tar.gz", "", "_com1.tar.gz"),
        ("console.zip", "", "console.zip"),
        ("Vol. 1", "", "Vol. 1.zip"),
        ("get.php", "application/zip", "get.php.zip"),
        ("get", "application/epub+zip", "get.epub"),
        ("get", "application/x-cbz", "get.cbz"),
        ("get", "application/octet-stream", "get.zip"),
    ],
)
def test_names_are_made_safe(suggested_name: str, content_type: str, name: str) -> None:
    assert file_name(suggested_name, content_type, Format.ZIP) == name


def test_names_are_cut_at_a_character() -> None:
    name = file_name("\u6f2b" * 200 + ".tar.gz", "", Format.GZIP)
    assert name == "\u6f2b" * 80 + ".tar.gz"
    assert len(name.encode()) <= LONGEST


@given(suggested_name=st.text(), archive_format=st.sampled_from(Format))
def test_every_name_is_safe(suggested_name: str, archive_format: Format) -> None:
    name = file_name(suggested_name, "", archive_format)
    assert is_archive_name(name)
    assert 0 < len(name.encode()) <= LONGEST
    assert not set(name) & set('/\\:"*?<>|\x00\n')
    assert not name.startswith(".")


@given(header=st.binary())
def test_no_header_breaks_the_parser(header: bytes) -> None:
    disposition_name(header)
    disposition_name(b"attachment; filename*=UTF-8''" + header)
    disposition_name(b'attachment; filename="' + header)
