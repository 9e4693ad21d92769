"""Downloads that resume, or start again."""

from __future__ import annotations

import multiprocessing
import socket
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from library.downloads import (
    ARCHIVE,
    ETAG,
    HALF,
    PIECE,
    SETTINGS,
    WHOLE,
    Client,
    Serve,
    broken,
    failed,
    good,
    random_archive,
    refused,
    respond,
)
from minion_server.library.download.fetch import fetch
from minion_server.library.download.network import Network
from minion_server.library.errors import DownloadError, LibraryError, RefusedError
from support.processes import until
from support.web_server import Request, head, reset

pytestmark = pytest.mark.program


def test_broken_connection_is_continued(client: Client, serve: Serve) -> None:
    server = serve(broken())
    assert client(server.url()) == ("a.zip", ARCHIVE)
    second = server.requests[1]
    assert second.headers["range"] == f"bytes={HALF}-"
    assert second.headers["if-range"] == ETAG
    assert client.waits == [1.0]


def test_connection_that_is_reset_is_continued(client: Client, serve: Serve) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        broken()(request, connection)
        if not request.number:
            reset(connection)

    assert client(serve(function).url())[1] == ARCHIVE


def test_date_continues_too(client: Client, serve: Serve) -> None:
    date = formatdate(1_700_000_000, usegmt=True)
    server = serve(broken(ETag='W/"weak"', Last_Modified=date))
    assert client(server.url())[1] == ARCHIVE
    assert server.requests[1].headers["if-range"] == date


def test_file_without_a_version_begins_anew(client: Client, serve: Serve) -> None:
    for etag in ('W/"weak"', "", '"\u20ac"'):
        server = serve(broken(ETag=etag))
        assert client(server.url())[1] == ARCHIVE
        assert "range" not in server.requests[1].headers


def test_server_that_ignores_ranges_begins_anew(client: Client, serve: Serve) -> None:
    server = serve(respond(PIECE, WHOLE))
    assert client(server.url())[1] == ARCHIVE
    assert server.requests[1].headers["range"] == f"bytes={HALF}-"


def test_file_that_changes_midway_begins_anew(client: Client, serve: Serve) -> None:
    other = random_archive(1)
    whole = head(200, Content_Length=len(other), ETag='"version 2"') + other
    assert client(serve(respond(PIECE, whole)).url())[1] == other
    # A server that knows Range but not If-Range.
    rest = head(
        206,
        Content_Range=f"bytes {HALF}-{len(other) - 1}/{len(other)}",
        Content_Length=len(other) - HALF,
        ETag='"version 2"',
    )
    server = serve(respond(PIECE, rest + other[HALF:], whole))
    assert client(server.url())[1] == other
    assert "range" not in server.requests[2].headers


def test_file_that_becomes_another_format_is_named_by_the_new_one(
    client: Client, serve: Serve
) -> None:
    other = b"Rar!\x1a\x07" + bytes(9000)
    server = serve(respond(PIECE, head(200) + other))
    assert client(server.url("/get")) == ("get.rar", other)


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        f"bytes 0-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
        f"bytes {HALF + 1}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
        f"bytes {HALF}-{len(ARCHIVE) - 1}/{len(ARCHIVE) + 1}",
        f"bytes {HALF}-{len(ARCHIVE) - 1}/*",
        "pages 1-2/3",
    ],
)
def test_other_ranges_begin_anew(client: Client, serve: Serve, content_range: str) -> None:
    odd = head(206, Content_Range=content_range, ETag=ETAG) + ARCHIVE[HALF:]
    server = serve(respond(PIECE, odd, WHOLE))
    assert client(server.url())[1] == ARCHIVE
    assert "range" not in server.requests[2].headers


def test_range_that_is_too_short_is_continued(client: Client, serve: Serve) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        if request.number != 1:
            broken()(request, connection)
            return
        start = request.start
        connection.sendall(
            head(
                206, Content_Range=f"bytes {start}-{start + 99}/{len(ARCHIVE)}", Content_Length=100
            )
            + ARCHIVE[start : start + 100]
        )

    assert client(serve(function).url())[1] == ARCHIVE


def test_size_may_be_known_from_the_range_alone(client: Client, serve: Serve) -> None:
    chunk = head(200, Transfer_Encoding="chunked", ETag=ETAG) + b"%x\r\n" % HALF + ARCHIVE[:HALF]
    rest = f"bytes {HALF}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"
    short = head(206, Content_Range=rest, ETag=ETAG) + ARCHIVE[HALF:-1]
    last = f"bytes {len(ARCHIVE) - 1}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"
    end = head(206, Content_Range=last, ETag=ETAG) + ARCHIVE[-1:]
    assert client(serve(respond(chunk, short, end)).url())[1] == ARCHIVE
    large = head(206, Content_Range=f"bytes {HALF}-9/{2**60}", ETag=ETAG)
    assert "larger than" in refused(client, serve(respond(chunk, large)).url())


def test_range_that_is_not_there_begins_anew(client: Client, serve: Serve) -> None:
    server = serve(respond(PIECE, head(416), WHOLE))
    assert client(server.url())[1] == ARCHIVE
    server = serve(respond(head(206, Content_Range="bytes 0-1/2") + b"PK"))
    assert "another part" in failed(client, server.url())


def test_server_that_always_breaks_is_given_up(client: Client, serve: Serve) -> None:
    server = serve(broken(100))
    assert "in 5 attempts: the connection broke" in failed(client, server.url())
    assert len(server.requests) == 5
    assert client.waits == [1.0, 2.0, 4.0, 8.0]
    assert client.kept() == [HALF]


def test_next_call_continues(client: Client, serve: Serve) -> None:
    server = serve(broken(4, Content_Disposition="attachment; filename=named.zip"))
    failed(client, server.url())
    assert client(server.url()) == ("named.zip", ARCHIVE)
    assert server.requests[5].headers["range"] == f"bytes={HALF}-"
    assert client.kept() == []


def test_next_call_begins_anew_without_its_state(client: Client, serve: Serve) -> None:
    for damage in (b"", b"{}", b"null", b"[1]", b'{"x": 1}', b"\xff"):
        server = serve(broken(4))
        failed(client, server.url())
        [state] = client.folder.glob("*/state.json")
        state.write_bytes(damage)
        assert client(server.url())[1] == ARCHIVE
        assert "range" not in server.requests[5].headers


def test_file_that_was_not_used_is_kept(client: Client, serve: Serve) -> None:
    server = serve(good)
    network = Network(is_allowed=client.is_allowed)
    with (
        pytest.raises(LibraryError, match="disk"),
        fetch(server.url(), client.folder, SETTINGS, network=network),
    ):
        raise LibraryError("the disk is full")
    assert client(server.url())[1] == ARCHIVE
    # Only the last byte, to see whether the file is still the same.
    assert server.requests[1].headers["range"] == f"bytes={len(ARCHIVE) - 1}-"


def test_file_that_the_caller_refuses_is_removed(client: Client, serve: Serve) -> None:
    network = Network(is_allowed=client.is_allowed)
    with (
        pytest.raises(RefusedError),
        fetch(serve(good).url(), client.folder, SETTINGS, network=network),
    ):
        raise RefusedError("The archive is broken.")
    assert client.kept() == []


def _download_until_killed(url: str, folder: Path) -> None:
    with fetch(url, folder, replace(SETTINGS, allow_private=True)):
        pass


def test_download_whose_process_is_killed_is_continued(client: Client, serve: Serve) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        broken()(request, connection)
        if not request.number:
            # It waits for the rest now.
            connection.recv(1)

    server = serve(function)
    process = multiprocessing.get_context("spawn").Process(
        target=_download_until_killed, args=(server.url(), client.folder)
    )
    process.start()
    try:
        # All but what the file object buffers.
        until(lambda: any(size > HALF - 65_536 for size in client.kept()))
        with pytest.raises(DownloadError, match="another job is downloading this URL"):
            client(server.url())
    finally:
        process.kill()
        process.join()
        process.close()
    assert client(server.url())[1] == ARCHIVE
    assert server.requests[1].start > HALF - 65_536


def test_old_partial_files_are_removed(client: Client, serve: Serve) -> None:
    failed(client, serve(broken(4)).url())
    failed(client, serve(broken(4)).url())
    assert len(client.kept()) == 2
    client.options["now"] = lambda: 10**10
    client(serve(good).url())
    assert client.kept() == []


def test_folder_that_cannot_be_written_fails(client: Client, serve: Serve, tmp_path: Path) -> None:
    client.folder = tmp_path / "file"
    client.folder.write_bytes(b"")
    with pytest.raises(LibraryError, match=r"^the download cannot be written: ") as caught:
        client(serve(good).url())
    assert not isinstance(caught.value, DownloadError)
