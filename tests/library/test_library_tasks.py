from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from library.conftest import Draw, Zip
from minion_client import Job
from minion_client.tasks import REGISTRY
from minion_server.library import (
    backup_json,
    build_stat_hashes,
    find_duplicates,
    handle_upload,
    regen_all_thumbnails,
    restore_backup,
    run_plugin,
    tank_thumbnail_task,
    warm_cache,
)
from minion_server.library.duplicates import group_similar
from minion_server.library.errors import LibraryError, NotInLibraryError
from minion_server.library.index import Index
from minion_server.library.metadata import MetadataStore, Tank
from minion_server.library.progress import Progress
from PIL import Image, ImageDraw, ImageFilter

COMIC_INFO = """<?xml version="1.0"?>
<ComicInfo><Title> A  &lt;title&gt; </Title><Writer>Ann, Bob</Writer><Penciller>Cy</Penciller>
<Web>https://example.org/1</Web><LanguageISO>en</LanguageISO><Genre>Action, Drama ,Action</Genre>
<Summary>
Two lines
of text.
</Summary><Pages><Page><Title>not this one</Title></Page></Pages></ComicInfo>"""
TANK = "TANK_1234567890"


@pytest.fixture
def upload(job: Job, make_zip: Zip) -> Callable[..., str]:
    """Upload a zip of entries, and return its id."""

    def uploaded(name: str, entries: dict[str, bytes], catid: str | None = None) -> str:
        result = handle_upload(job, str(make_zip(name, entries)), catid)
        assert result["success"] == 1, result
        return result["id"]

    return uploaded


def _art(seed: int, size: tuple[int, int] = (600, 900)) -> Image.Image:
    """Draw a picture that differs from those of other seeds."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, tuple(chance.randrange(256) for _ in range(3)))
    brush = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = chance.randrange(size[0]), chance.randrange(size[1])
        box = (x, y, x + chance.randrange(20, 250), y + chance.randrange(20, 250))
        brush.ellipse(box, fill=tuple(chance.randrange(256) for _ in range(3)))
    return image


def _file(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_jobs_have_lanraragis_priorities_and_attempts() -> None:
    defaults = {task.name: task.defaults for task in REGISTRY if task.defaults}
    assert (
        defaults
        | {
            "build_stat_hashes": {"priority": 3},
            "handle_upload": {"priority": 2},
            "page_thumbnails": {"attempts": 3},
            "tank_thumbnail_task": {"attempts": 3},
            "thumbnail_task": {"attempts": 3},
        }
        == defaults
    )


def test_an_upload_draws_its_cover_and_reads_the_metadata_inside(
    job: Job, library: Path, draw: Draw, make_zip: Zip
) -> None:
    path = make_zip("x.zip", {"a/1.jpg": draw(1), "a/ComicInfo.xml": COMIC_INFO.encode()})
    result = handle_upload(job, str(path), None)
    assert result["title"] == "A <title>"
    entry = Index(library).entry(result["id"])
    assert (entry.title, entry.summary) == ("A <title>", "Two lines\nof text.")
    assert entry.tags == (
        "Action",
        "Drama",
        "artist:Cy",
        "group:Ann",
        "group:Bob",
        "language:en",
        "source:https://example.org/1",
    )
    assert entry.thumbhash == ""
    cover = library / ".minion" / "thumbs" / entry.id[:2] / f"{entry.id}.jpg"
    assert _size(cover)[1] == 500


@pytest.mark.parametrize(
    ("content", "tags", "title"),
    [
        ({"tags": "a\x00b, \ud800c", "title": "\x1b[31m \udfffT"}, ("a b", "c"), "[31m T"),
        ({"tags": "a, b ,a", "title": "T"}, ("a", "b"), "T"),
        ({"tags": ["a", "b,c"]}, ("a", "b", "c"), "x"),
        ({"gallery_info": {"tags": {"artist": ["z"], "misc": "m"}}}, ("artist:z", "m"), "x"),
        ({"tags": {"artist": [1, None, ["z"]]}, "title": 5}, (), "x"),
    ],
)
def test_metadata_of_info_json(
    library: Path,
    draw: Draw,
    upload: Callable[..., str],
    content: Any,
    tags: tuple[str, ...],
    title: str,
) -> None:
    archive_id = upload("x.zip", {"1.jpg": draw(1), "info.json": json.dumps(content).encode()})
    entry = Index(library).entry(archive_id)
    assert (entry.tags, entry.title) == (tags, title)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("ComicInfo.xml", b"<a><b></a>", "ComicInfo.xml cannot be read: mismatched tag"),
        ("ComicInfo.xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "it has a document type"),
        ("comicinfo.XML", b" " * (2**20 + 1), "is larger than 1048576 bytes"),
        ("info.json", b"[" * 100_000, "info.json cannot be read"),
        ("info.json", b"5", "it is no JSON object"),
    ],
)
def test_metadata_that_cannot_be_read_spoils_no_upload(
    job: Job, draw: Draw, make_zip: Zip, name: str, content: bytes, error: str
) -> None:
    path = make_zip("x.zip", {"1.jpg": draw(1), name: content})
    result = handle_upload(job, str(path), None)
    assert result["success"] == 1
    assert error in result["message"]
    again = run_plugin(job, "comicinfo", result["id"])
    assert (again["type"], again["success"]) == ("metadata", 0)
    assert error in again["error"]


def test_run_plugin_stores_what_it_finds(
    job: Job, library: Path, draw: Draw, upload: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINION_LIBRARY_PLUGINS", "none")
    archive_id = upload("x.zip", {"1.jpg": draw(1), "ComicInfo.xml": COMIC_INFO.encode()})
    assert Index(library).entry(archive_id).tags == ()
    result = run_plugin(job, "comicinfo", archive_id, None)
    assert result == {
        "type": "metadata",
        "success": 1,
        "error": None,
        "data": {
            "new_tags": "group:Ann, group:Bob, artist:Cy, source:https://example.org/1, "
            "language:en, Action, Drama",
            "title": "A <title>",
            "summary": "Two lines\nof text.",
        },
    }
    assert len(Index(library).entry(archive_id).tags) == 7
    assert run_plugin(job, "comicinfo", archive_id)["data"]["new_tags"] == ""


@pytest.mark.parametrize(
    ("arguments", "kind", "error"),
    [
        (("nothing", None), None, "plugin: there is no 'nothing'; installed: comicinfo, dupl"),
        ((None, None), None, "plugin: there is no ''"),
        ((5, None), None, "namespace must be a string or null, not 5"),
        (("comicinfo", None), "metadata", "None is not in the library"),
        (("comicinfo", "../../etc"), "metadata", "is not in the library"),
        (("comicinfo", "0" * 40), "metadata", "is not in the library"),
        (("comicinfo", "0" * 40, 5), None, "arg must be a string or null, not 5"),
        (("duplicate_pages", None, "0" * 40), "script", "is not in the library"),
    ],
)
def test_a_plugin_that_cannot_be_run_says_why(
    job: Job, arguments: tuple[Any, ...], kind: str | None, error: str
) -> None:
    result = run_plugin(job, *arguments)
    assert (result["type"], result["success"]) == (kind, 0)
    assert error in result["error"]
    assert result["data"] == {"error": result["error"]}


def test_pages_that_several_archives_have(
    job: Job,
    draw: Draw,
    upload: Callable[..., str],
    noted: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = upload("one.zip", {"1.jpg": draw(1), "2.jpg": draw(9)})
    two = upload("two.zip", {"1.jpg": draw(2), "2.jpg": draw(9), "3.jpg": draw(9)})
    three = upload("three.zip", {"1.jpg": draw(3), "2.jpg": draw(2)})
    result = run_plugin(job, "duplicate_pages")
    assert result["success"] == 1
    pages = result["data"]["pages"]
    assert {(place["id"], place["page"]) for place in pages[0]} == {(one, 2), (two, 2), (two, 3)}
    assert {(place["id"], place["page"]) for place in pages[1]} == {(two, 1), (three, 2)}
    assert len(pages) == 2
    assert noted[-1] == {"archives_processed": 3, "total_archives": 3}
    (only,) = run_plugin(job, "duplicate_pages", None, three)["data"]["pages"]
    assert only == pages[1]
    monkeypatch.setenv("MINION_PLUGIN_DUPLICATE_PAGES_MAX_PAGES", "1")
    assert len(run_plugin(job, "duplicate_pages")["data"]["pages"]) == 1
    monkeypatch.setenv("MINION_PLUGIN_DUPLICATE_PAGES_MAX_PAGES", "x")
    assert (
        "MINION_PLUGIN_DUPLICATE_PAGES_MAX_PAGES: expected"
        in run_plugin(job, "duplicate_pages")["error"]
    )


def test_a_page_that_cannot_be_read_hides_no_other(
    job: Job, library: Path, draw: Draw, upload: Callable[..., str]
) -> None:
    pages = {f"{number}.jpg": draw(number) for number in (1, 2, 3)}
    upload("one.zip", pages)
    upload("two.zip", {"0.jpg": draw(9)} | pages)
    content = bytearray((library / "two.zip").read_bytes())
    content[content.index(b"1.jpg") + 1000] ^= 0xFF
    (library / "two.zip").write_bytes(content)
    data = run_plugin(job, "duplicate_pages")["data"]
    assert len(data["pages"]) == 2
    (error,) = data["errors"]
    assert error.startswith("two.zip: page 2: '1.jpg' cannot be read")


def test_covers_that_look_alike_are_duplicates(
    job: Job, upload: Callable[..., str], noted: list[dict[str, Any]]
) -> None:
    image = _art(1)
    alike = [
        upload("original.zip", {"1.png": _file(image, "PNG")}),
        upload("recompressed.zip", {"1.jpg": _file(image, quality=30)}),
        upload("smaller.zip", {"1.webp": _file(image.resize((300, 450)), "WEBP")}),
        upload("soft.zip", {"1.jpg": _file(image.filter(ImageFilter.GaussianBlur(2)))}),
    ]
    for seed in range(2, 22):
        upload(f"other {seed}.zip", {"1.jpg": _file(_art(seed))})
    blank = [Image.new("RGB", (60, 90), color) for color in ("white", "black")]
    for number, page in enumerate(blank):
        upload(f"blank {number}.zip", {"1.png": _file(page, "PNG")})
    result = find_duplicates(job, 5)
    assert result["errors"] == []
    assert [set(group) for group in result["groups"]] == [set(alike)]
    assert noted[-1] == {"archives_processed": 26, "total_archives": 26}


@pytest.mark.parametrize("threshold", [-1, 32, 0.5, "x", "٣", None, True])
def test_a_threshold_out_of_range_is_refused(job: Job, threshold: object) -> None:
    with pytest.raises(LibraryError, match="threshold must be"):
        find_duplicates(job, threshold)


@pytest.mark.parametrize("threshold", [0, 1, 5, 12, 31])
def test_groups_are_those_of_every_pair(threshold: int) -> None:
    chance = random.Random(threshold)
    hashes: dict[str, int] = {}
    for number in range(300):
        bits = chance.getrandbits(128)
        if hashes and chance.random() < 0.6:
            bits = chance.choice(list(hashes.values()))
            for _ in range(chance.randrange(threshold * 2 + 2)):
                bits ^= 1 << chance.randrange(128)
        hashes[f"{number}"] = bits
    groups = {frozenset(group) for group in group_similar(hashes, threshold)}
    expected = {key: {key} for key in hashes}
    for one, value in hashes.items():
        for other, another in hashes.items():
            if (value ^ another).bit_count() <= threshold:
                merged = expected[one] | expected[other]
                for key in merged:
                    expected[key] = merged
    assert groups == {frozenset(group) for group in expected.values() if len(group) > 1}


def test_a_tank_shows_the_cover_of_its_first_archive(
    job: Job, library: Path, tmp_path: Path, draw: Draw, upload: Callable[..., str]
) -> None:
    first = upload("1.zip", {"1.jpg": draw(1)})
    second = upload("2.zip", {"1.jpg": draw(5)})
    tanks = MetadataStore(Index(library).database)
    thumbs = tmp_path / "thumbs"
    tanks.set_tank(Tank(id=TANK, name="A series", archives=(second, first)))
    assert tank_thumbnail_task(job, str(thumbs), TANK) == str(thumbs / "TA" / f"{TANK}.jpg")
    drawn = (thumbs / "TA" / f"{TANK}.jpg").read_bytes()
    covers = library / ".minion" / "thumbs"
    assert drawn == (covers / second[:2] / f"{second}.jpg").read_bytes()
    tanks.set_tank(Tank(id=TANK, name="A series"))
    assert tank_thumbnail_task(job, str(thumbs), TANK) == "No archives in tank."
    for tank in ("TANK_0000000000", "TANK_../../../..", None):
        with pytest.raises(NotInLibraryError, match="is not in the library"):
            tank_thumbnail_task(job, str(thumbs), tank)


def test_all_covers_are_made_again(
    job: Job,
    library: Path,
    tmp_path: Path,
    draw: Draw,
    upload: Callable[..., str],
    noted: list[dict[str, Any]],
) -> None:
    ids = [upload(f"{number}.zip", {"1.jpg": draw(number)}) for number in range(1, 8)]
    broken = upload("broken.zip", {"1.jpg": draw(9)[:300]})
    MetadataStore(Index(library).database).set_tank(Tank(id=TANK, name="T", archives=(ids[0],)))
    thumbs = tmp_path / "thumbs"
    paths = [thumbs / one[:2] / f"{one}.jpg" for one in ids] + [thumbs / "TA" / f"{TANK}.jpg"]
    result = regen_all_thumbnails(job, str(thumbs), 0)
    assert all(path.exists() for path in paths)
    (error,) = result["errors"]
    assert error.startswith(f"broken.zip: page 1 of {broken}: the image cannot be read")
    assert noted[-1] == {"archives_processed": 8, "total_archives": 8}
    for path in paths:
        path.write_bytes(b"old")
    regen_all_thumbnails(job, str(thumbs), "0")
    assert {path.read_bytes() for path in paths} == {b"old"}
    regen_all_thumbnails(job, str(thumbs), "1")
    assert all(path.read_bytes() != b"old" for path in paths)


def test_the_newest_archives_are_put_into_the_cache(
    job: Job, library: Path, upload: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [
        upload(
            f"{number}.zip",
            {f"{page}.jpg": _file(_art(number * 10 + page, (1500, 2000))) for page in (10, 2)}
            | {"1.jpg": b"no image"},
        )
        for number in range(3)
    ]
    cache = library / ".minion" / "cache"
    newest = [entry.id for entry in Index(library).entries()]
    assert set(newest) == set(ids)
    result = warm_cache(job, 2)
    assert result["archives"] == 2
    assert sorted(result["errors"]) == sorted(
        f"{Index(library).entry(one).file}: page 1: not an image that can be read"
        for one in newest[:2]
    )
    assert {path.name for path in cache.iterdir()} == set(newest[:2])
    folder = cache / newest[0]
    assert json.loads((folder / "pages.json").read_bytes()) == ["1.jpg", "2.jpg", "10.jpg"]
    assert _size(folder / "3.jpg") == (1064, 1419)
    assert sorted(path.name for path in folder.iterdir()) == ["2.jpg", "3.jpg", "pages.json"]

    assert warm_cache(job, 2) == {"archives": 2, "errors": []}
    monkeypatch.setenv("MINION_LIBRARY_CACHE_BYTES", "1")
    warm_cache(job, 3)
    assert list(cache.iterdir()) == []
    for count in (-1, "-3", 0.5):
        with pytest.raises(LibraryError, match="count must"):
            warm_cache(job, count)


def test_tags_are_counted(job: Job, library: Path, draw: Draw, upload: Callable[..., str]) -> None:
    for number, tags in enumerate(["artist:A, x", "X, artist:a, y", "artist:a", ""], start=1):
        info = json.dumps({"tags": tags}).encode()
        upload(f"{number}.zip", {"1.jpg": draw(number), "2.jpg": draw(2), "info.json": info})
    totals = build_stat_hashes(job)
    size = sum(path.stat().st_size for path in library.glob("*.zip"))
    assert totals == {"archives": 4, "pages": 8, "bytes": size, "untagged": 2, "tags": 3}
    stats = json.loads((library / ".minion" / "stats.json").read_bytes())
    assert stats["totals"] == totals
    assert stats["tags"] == [
        {"text": "a", "namespace": "artist", "weight": 3},
        {"text": "x", "namespace": "", "weight": 2},
        {"text": "y", "namespace": "", "weight": 1},
    ]


def test_metadata_is_backed_up_and_restored(
    job: Job,
    tmp_path: Path,
    library: Path,
    draw: Draw,
    upload: Callable[..., str],
    noted: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = json.dumps({"tags": "a, artist:b", "title": "T", "summary": "S"}).encode()
    ids = [
        upload("1.zip", {"1.jpg": draw(1), "info.json": info}, "SET_1"),
        upload("2.zip", {"1.jpg": draw(2)}),
    ]
    MetadataStore(Index(library).database).set_tank(
        Tank(id=TANK, name="A series", summary="of two", tags="x", archives=tuple(ids))
    )
    result = backup_json(job)
    assert result["success"] == 1
    assert result["filename"] == f"backup_{job.id}.json"
    assert result["path"] == str(library / ".minion" / "backups" / result["filename"])
    assert noted[-1] == {
        "categories_processed": 1,
        "total_categories": 1,
        "tankoubons_processed": 1,
        "total_tankoubons": 1,
        "archives_processed": 2,
        "total_archives": 2,
        "status": "Finalizing backup...",
    }
    text = Path(result["path"]).read_text()
    before = {entry.id: entry for entry in Index(library).entries()}
    (library / ".minion" / "index.sqlite3").unlink()
    for name in ("1.zip", "2.zip"):
        (library / name).unlink()
    monkeypatch.setenv("MINION_LIBRARY_PLUGINS", "none")
    # The second archive is not in the library when the backup is restored.
    assert handle_upload(job, str(tmp_path / "incoming" / "1.zip"))["id"] == ids[0]
    assert restore_backup(job, text) == {"success": 1}
    entry = Index(library).entry(ids[0])
    assert (entry.title, entry.summary, entry.tags) == ("T", "S", ("a", "artist:b"))
    assert entry.thumbhash == before[ids[0]].thumbhash
    metadata = MetadataStore(Index(library).database)
    (category,) = metadata.categories()
    assert (category.id, category.name, category.archives) == ("SET_1", "SET_1", (ids[0],))
    assert metadata.tank(TANK).archives == tuple(ids)
    assert noted[-1]["status"] == "Finalizing restore..."


@pytest.mark.parametrize(
    ("backup", "error"),
    [
        (5, "json: expected a backup as text, got 5"),
        ("{", "json: expected a backup: "),
        ("[]", "json: expected a backup, which is an object"),
        ('{"archives": {}}', "json: archives: expected a list of objects"),
        ('{"archives": [{"arcid": 5}]}', "json: archives[0].arcid: expected a text, got 5"),
        ('{"archives": [{"arcid": "../x", "title": ""}]}', "an id is 40 lowercase hex digits"),
        ('{"tankoubons": [{"tankid": "x", "name": "n"}]}', "a tank's id is TANK_ and ten digits"),
        (
            '{"categories": [{"catid": "SET_1", "name": "n", "archives": [1]}]}',
            "an id is 40 lowercase hex digits",
        ),
    ],
)
def test_a_backup_that_is_none_changes_nothing(
    job: Job, library: Path, backup: object, error: str
) -> None:
    if isinstance(backup, str) and backup.startswith('{"'):
        good = {"catid": "SET_9", "name": "n"}
        data = json.loads(backup)
        data.setdefault("categories", []).insert(0, good)
        backup = json.dumps(data)
    with pytest.raises(LibraryError) as raised:
        restore_backup(job, backup)
    assert error in str(raised.value)
    assert MetadataStore(Index(library).database).categories() == []


def test_progress_is_noted_twice_a_second(job: Job, noted: list[dict[str, Any]]) -> None:
    now = 0.0
    progress = Progress(job, "pages", clock=lambda: now)
    for done in range(1, 101):
        progress(done, 100)
        now += 0.1
    counts = [notes["pages_processed"] for notes in noted]
    assert counts[0] == 1
    assert counts[-1] == 100
    assert 15 <= len(counts) <= 22
