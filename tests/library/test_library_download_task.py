from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from library.conftest import Draw, Zip
from library.downloads import Serve, respond
from minion_client import Job
from minion_server.library import download_url, plugins
from minion_server.library.download_task import source_of
from minion_server.library.errors import DownloadError
from minion_server.library.index import Index
from minion_server.library.metadata import MetadataStore
from minion_server.library.plugins import DownloadCall, Plugin, PluginError, PluginKind
from support.web_server import Request, head


@pytest.fixture
def archive(draw: Draw, make_zip: Zip) -> bytes:
    return make_zip("x.zip", {"1.jpg": draw(1)}).read_bytes()


@pytest.fixture(autouse=True)
def private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINION_LIBRARY_ALLOW_PRIVATE_URLS", "1")


def _served(content: bytes, **headers: str) -> bytes:
    return head(200, Content_Length=len(content), **headers) + content


def test_a_download_is_taken_into_the_library(
    job: Job,
    library: Path,
    serve: Serve,
    archive: bytes,
    visible: Callable[[], list[str]],
    noted: list[dict[str, Any]],
) -> None:
    disposition = "attachment; filename*=UTF-8''B%C3%A4nde%201.zip"
    server = serve(respond(_served(archive, Content_Disposition=disposition)))
    url = f"http://127.0.0.1:{server.port}/get/?id=1,2"
    source = f"127.0.0.1:{server.port}/get?id=1%2C2"
    result = download_url(job, url, "SET_1")
    (entry,) = Index(library).entries()
    assert result == {
        "success": 1,
        "url": source,
        "id": entry.id,
        "category": "SET_1",
        "title": "Bände 1",
        "message": "Added to the Library with 1 page. Added to the category SET_1.",
    }
    assert visible() == ["Bände 1.zip"]
    assert entry.tags == (f"source:{source}",)
    assert {"bytes_processed": len(archive), "total_bytes": len(archive)} in noted
    assert noted[-1] == {"pages_processed": 1, "total_pages": 1}
    assert list((library / ".minion" / "downloads").glob("*/*")) == []

    again = download_url(job, f"  http://user:secret@127.0.0.1:{server.port}/get?id=1,2#top ")
    assert again["success"] == 0
    assert again["id"] == entry.id
    assert again["message"] == "This URL is already downloaded."
    assert len(server.requests) == 1

    assert download_url(job, url, "SET_2")["success"] == 0
    categories = MetadataStore(Index(library).database).categories()
    assert [one.archives for one in categories] == [(entry.id,), (entry.id,)]

    (library / "Bände 1.zip").unlink()
    assert download_url(job, url)["success"] == 1


def test_a_url_of_an_archive_that_the_library_has_is_its_source_too(
    job: Job, library: Path, serve: Serve, archive: bytes
) -> None:
    server = serve(respond(_served(archive)))
    for name, message in (
        ("x.zip", "Added to the Library with 1 page."),
        ("y.zip", "This file already exists in the Library."),
        ("y.zip", "This URL is already downloaded."),
    ):
        url = f"http://127.0.0.1:{server.port}/{name}"
        assert download_url(job, url)["message"] == message
    assert len(Index(library).entries()[0].tags) == 2
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://www.Example.org/a/b/", "example.org/a/b"),
        ("http://example.org:80", "example.org"),
        ("http://example.org:8080/?q=1", "example.org:8080?q=1"),
        ("https://example.org/a/?q=1&r=2#x", "example.org/a?q=1&r=2"),
    ],
)
def test_one_page_has_one_source_tag(url: str, source: str) -> None:
    assert source_of(url) == source


@pytest.mark.parametrize(
    ("url", "catid", "message"),
    [
        ("ftp://example.org/x.zip", None, "The URL must begin with http:// or https://."),
        (5, None, "URL"),
        (None, None, "URL"),
        ("http://example.org/x.zip", 5, "catid must be a string or null, not 5."),
    ],
)
def test_a_url_that_is_refused_says_why(job: Job, url: object, catid: object, message: str) -> None:
    result = download_url(job, url, catid)
    assert result["success"] == 0
    assert message in result["message"]
    assert set(result) == {"success", "url", "id", "category", "title", "message"}


def test_loopback_is_refused_unless_a_setting_allows_it(
    job: Job, serve: Serve, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(respond(_served(archive)))
    monkeypatch.delenv("MINION_LIBRARY_ALLOW_PRIVATE_URLS")
    result = download_url(job, f"http://127.0.0.1:{server.port}/x.zip")
    assert result["success"] == 0
    assert "127.0.0.1" in result["message"]
    assert server.requests == []


def test_a_file_that_is_no_archive_is_refused_as_an_upload_is(
    job: Job, serve: Serve, archive: bytes, visible: Callable[[], list[str]]
) -> None:
    server = serve(respond(_served(archive[:-30])))
    result = download_url(job, f"http://127.0.0.1:{server.port}/x.zip")
    assert (result["success"], result["title"]) == (0, "x")
    assert result["message"].startswith("The zip archive is broken")
    assert visible() == []


def test_a_download_that_fails_is_tried_again_while_attempts_are_left(
    job: Job, serve: Serve, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINION_LIBRARY_DOWNLOAD_TIMEOUT", "0.5")
    half = len(archive) // 2

    def broken(request: Request, connection: socket.socket) -> None:
        if request.number < 2:
            connection.sendall(head(200, Content_Length=len(archive), ETag='"1"') + archive[:half])
        else:
            assert request.start == half
            span = f"bytes {half}-{len(archive) - 1}/{len(archive)}"
            lines = head(206, Content_Length=len(archive) - half, Content_Range=span, ETag='"1"')
            connection.sendall(lines + archive[half:])

    server = serve(broken)
    url = f"http://127.0.0.1:{server.port}/x.zip"
    with pytest.raises(DownloadError, match="cannot download"):
        download_url(replace(job, attempts=2), url)
    last = download_url(job, url)
    assert last["success"] == 0
    assert last["message"].startswith("cannot download")
    assert download_url(job, url)["success"] == 1


@pytest.mark.parametrize("kind", ["url", "path", "error", "nonsense"])
def test_a_plugin_prepares_the_downloads_of_its_urls(
    job: Job,
    library: Path,
    serve: Serve,
    archive: bytes,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(respond(_served(archive)))

    def prepare(call: DownloadCall) -> object:
        assert call.url == "https://gallery.example/g/1"
        match kind:
            case "url":
                return f"http://127.0.0.1:{server.port}/x.zip"
            case "path":
                (call.folder / "y.zip").write_bytes(archive)
                return call.folder / "y.zip"
            case "error":
                raise PluginError("The gallery is gone.")
            case _:
                return 5

    plugin = Plugin(
        namespace="gallery",
        name="Gallery",
        description="",
        kind=PluginKind.DOWNLOAD,
        run=prepare,
        url_pattern=r"^https://gallery\.example/g/[0-9]+$",
    )
    monkeypatch.setattr(plugins, "find_plugins", lambda: {"gallery": plugin})
    result = download_url(job, "https://gallery.example/g/1")
    match kind:
        case "url" | "path":
            assert result["success"] == 1
            assert result["title"] == ("x" if kind == "url" else "y")
            assert Index(library).entry(result["id"]).tags == ("source:gallery.example/g/1",)
        case "error":
            assert result["message"] == "The gallery is gone."
        case _:
            assert result["message"] == "gallery failed: it returned no URL and no path"
    found = MetadataStore(Index(library).database).find_by_tag("source:gallery.example/g/1")
    assert len(found) == result["success"]


def test_bundled_plugins_are_entry_points() -> None:
    assert set(plugins.find_plugins()) >= {"comicinfo", "duplicate_pages"}


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, error in (
        ("no_such_module:PLUGIN", "plugin p: cannot import no_such_module:PLUGIN: No module"),
        ("minion_server.library.plugins:GROUP", "is not a Plugin"),
    ):
        point = metadata.EntryPoint("p", value, plugins.GROUP)
        monkeypatch.setattr(metadata, "entry_points", lambda point=point, **_: [point])
        plugins.find_plugins.cache_clear()
        try:
            with pytest.raises(PluginError, match=error):
                plugins.find_plugins()
        finally:
            plugins.find_plugins.cache_clear()
