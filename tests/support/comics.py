"""Comic archives as people have them: valid ones of every kind, and invalid ones."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backports import zstd
from PIL import Image, ImageDraw

Entries = dict[str, bytes]
_KINDS = ("JPEG", "PNG", "WEBP")
_SIZE = (160, 240)
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Comic:
    """An archive that a library should take.

    Attributes:
        name: File name.
        pages: Its number of pages.
        cover: Number of the picture on its cover: comics with the same one look alike.
    """

    name: str
    pages: int
    cover: int


def draw(picture: int, kind: str = "JPEG", size: tuple[int, int] = _SIZE) -> bytes:
    """Draw a picture that differs from those of other numbers."""
    chance = random.Random(picture)

    def color() -> tuple[int, ...]:
        return tuple(chance.randrange(256) for _ in range(3))

    image = Image.new("RGB", size, color())
    brush = ImageDraw.Draw(image)
    for _ in range(25):
        x, y = chance.randrange(size[0]), chance.randrange(size[1])
        side = chance.randrange(size[0] // 20, size[0] // 3)
        brush.ellipse((x, y, x + side, y + side), fill=color())
    out = io.BytesIO()
    image.save(out, kind, quality=80) if kind != "PNG" else image.save(out, kind)
    return out.getvalue()


def make_good(folder: Path, count: int) -> list[Comic]:
    """Write archives of every kind, of 1 to 300 pages; every tenth looks like the one before."""
    writers = (_zip, _stored_zip, _tar, _tar_gz, _epub, _tar_zst, _pdf)
    comics = []
    for number in range(count):
        pages = 300 if number == 0 else 1 + number * 7 % 12
        cover = number - 1 if number % 10 == 9 else number
        extension = (".zip", ".cbz", ".cbt", ".tar.gz", ".epub", ".tar.zst", ".pdf")[number % 7]
        name = f"{('Comic', 'Bände', '漫画', 'Книга')[number % 4]} {number:03}{extension}"
        kind = _KINDS[number % 3]
        directory = ("", "pages/", "Kapitel 1/tiefer/", "第1章/")[number // 4 % 4]
        # Unlike pages, so that no two archives are one.
        entries = {
            f"{directory}{page:03}.{kind.lower()}": draw(
                cover if page == 0 else 10_000 + number * 13 + page % 7, kind
            )
            for page in range(pages)
        }
        entries["ComicInfo.xml"] = f"<ComicInfo><Writer>W{number % 5}</Writer></ComicInfo>".encode()
        (folder / name).write_bytes(writers[number % 7](entries))
        comics.append(Comic(name=name, pages=pages, cover=cover))
    return comics


def make_bad(folder: Path) -> dict[str, str]:
    """Write archives that a library must refuse; return a part of the reason for each name."""
    good = {f"{page}.jpg": draw(page) for page in range(3)}
    whole = _zip(good)
    files: dict[str, tuple[bytes, str]] = {
        "empty.zip": (b"", "The file is empty."),
        "truncated.zip": (whole[: len(whole) // 2], "The zip archive is broken"),
        "truncated.tar": (_tar(good)[:5000], "broken"),
        "damaged.zip": (_damaged(whole), "broken"),
        "encrypted.zip": (_encrypted(whole), "The archive is encrypted."),
        "text.cbz": (b"This is no archive at all.\n" * 40, "content is not an archive"),
        "picture.zip": (draw(1), "content is not an archive"),
        "no pages.zip": (_zip({"readme.txt": b"nothing"}), "The archive holds no images."),
        "outside.zip": (_zip(good | {"../../outside.jpg": draw(5)}), "points outside"),
        "outside.tar": (_tar(good | {"/tmp/outside.jpg": draw(5)}), "points outside"),
        "link.cbt": (_linked_tar(good), "is a link"),
        "bomb.zip": (_bomb(10_240), "is larger than"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {name: reason for name, (_, reason) in files.items()}


def make_odd(folder: Path) -> str:
    """Write an archive whose only page claims 65,535 x 65,535 pixels, and return its name."""
    picture = bytearray(draw(1, "PNG"))
    picture[16:24] = struct.pack(">2I", 65_535, 65_535)
    picture[29:33] = struct.pack(">I", zlib.crc32(picture[12:29]))
    name = "enormous page.zip"
    (folder / name).write_bytes(_zip({"1.png": bytes(picture)}))
    return name


def _zip(entries: Entries, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def _stored_zip(entries: Entries) -> bytes:
    return _zip(entries, zipfile.ZIP_STORED)


def _epub(entries: Entries) -> bytes:
    return _zip({"mimetype": b"application/epub+zip"} | entries)


def _tar(entries: Entries, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]  # mode varies
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _tar_gz(entries: Entries) -> bytes:
    return _tar(entries, "w:gz")


def _tar_zst(entries: Entries) -> bytes:
    return zstd.compress(_tar(entries))


def _pdf(entries: Entries) -> bytes:
    """Write a PDF file of the pictures."""
    pictures = [
        Image.open(io.BytesIO(content)) for name, content in entries.items() if "Info" not in name
    ]
    out = io.BytesIO()
    pictures[0].save(out, "PDF", save_all=True, append_images=pictures[1:])
    return out.getvalue()


def _linked_tar(entries: Entries) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("4.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def _damaged(whole: bytes) -> bytes:
    content = bytearray(whole)
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def _encrypted(whole: bytes) -> bytes:
    """Set the flag of encryption in all headers."""
    content = bytearray(whole)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for place in _places(content, magic):
            content[place + offset] |= 1
    return bytes(content)


def _places(content: bytearray, magic: bytes) -> Iterator[int]:
    place = content.find(magic)
    while place >= 0:
        yield place
        place = content.find(magic, place + 1)


def _bomb(mebibytes: int) -> bytes:
    """Return a zip of a page of zeros, a thousand times as large as the zip."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = deflate.compress(bytes(_MEBIBYTE)) + deflate.flush(zlib.Z_FULL_FLUSH)
    packed = first * mebibytes + deflate.flush(zlib.Z_FINISH)
    sizes = struct.pack("<3L", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    extra = struct.pack("<2H2Q", 1, 16, mebibytes * _MEBIBYTE, len(packed))
    name = b"1.png"
    common = struct.pack("<5H", 45, 0, 8, 0, 0) + sizes + struct.pack("<2H", len(name), len(extra))
    entry = b"PK\x03\x04" + common + name + extra + packed
    directory = (
        b"PK\x01\x02"
        + struct.pack("<H", 45)
        + common
        + struct.pack("<3H2L", 0, 0, 0, 0, 0)
        + name
        + extra
    )
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, len(directory), len(entry), 0)
    return entry + directory + end
