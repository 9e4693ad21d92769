"""PDF files and tars of zstd, which need further libraries."""

from __future__ import annotations

import io
import resource
import signal
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pypdfium2
import pytest
from backports import zstd
from library.conftest import Draw
from minion_client import Job
from minion_server.library import handle_upload
from minion_server.library.archive import open_archive
from minion_server.library.errors import RefusedError
from minion_server.library.settings import Limits
from PIL import Image
from support.rar import write_rar

LIMITS = Limits()
# The empty password does not fit the value of U, whatever fits it.
ENCRYPTED_PDF = b"""%%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Count 1 /Kids [3 0 R]>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 72 72]>> endobj
4 0 obj <</Filter /Standard /V 2 /R 3 /Length 128 /P -4 /O <%s> /U <%s>>> endobj
trailer <</Root 1 0 R /Encrypt 4 0 R /ID [<%s> <%s>] /Size 5>>
%%%%EOF
""" % (b"11" * 32, b"22" * 32, b"33" * 16, b"33" * 16)


def _pdf(path: Path, *sizes: tuple[float, float]) -> Path:
    """Write a PDF file of pages of these sizes in points, each with a red square."""
    document = pypdfium2.PdfDocument.new()
    for width, height in sizes:
        page = document.new_page(width, height)
        image = pypdfium2.PdfImage.new(document)
        bitmap = pypdfium2.PdfBitmap.from_pil(Image.new("RGB", (8, 8), "red"))
        image.set_bitmap(bitmap)
        image.set_matrix(pypdfium2.PdfMatrix().scale(min(width, 72), min(height, 72)))
        page.insert_obj(image)
        page.gen_content()
    document.save(path)
    return path


def _pdf_bomb() -> bytes:
    """Return a PDF of a page whose drawing is a thousand times as long as the file."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    lines = deflate.compress(b"0 0 m 9 9 l S\n" * 70_000) + deflate.flush(zlib.Z_FULL_FLUSH)
    drawing = b"\x78\x9c" + lines * 1200 + deflate.flush()
    return b"""%%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Count 1 /Kids [3 0 R]>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] /Contents 4 0 R>> endobj
4 0 obj <</Filter /FlateDecode /Length %d>> stream
%s
endstream endobj
trailer <</Root 1 0 R /Size 5>>
%%%%EOF
""" % (len(drawing), drawing)


def _image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_pages_of_a_pdf_are_drawn_at_200_dpi(tmp_path: Path) -> None:
    path = _pdf(tmp_path / "a.pdf", (144, 216), *[(72, 72)] * 10)
    with open_archive(path, LIMITS) as archive:
        assert [page.name for page in archive.pages] == [f"{n}.jpg" for n in range(1, 12)]
        with _image(archive.read(archive.pages[0])) as image:
            assert (image.format, image.size) == ("JPEG", (400, 600))
            # A PDF begins at the bottom.
            red, green, blue = image.getpixel((20, 580))  # type: ignore[misc]  # of an RGB image
            assert (red > 200, green < 60, blue < 60) == (True, True, True)
            assert image.getpixel((380, 20)) == (255, 255, 255)
        assert archive.read_file("ComicInfo.xml", 1000) is None
        archive.drain()


def test_an_enormous_page_of_a_pdf_gets_fewer_dots(tmp_path: Path) -> None:
    path = _pdf(tmp_path / "a.pdf", (14_400, 14_400))
    with open_archive(path, LIMITS) as archive, _image(archive.read(archive.pages[0])) as image:
        assert image.size == (4000, 4000)
    with (
        open_archive(path, Limits(pixels=10_000)) as archive,
        _image(archive.read(archive.pages[0])) as image,
    ):
        assert image.size == (100, 100)


@pytest.mark.parametrize("size", [(0.001, 1e8), (1e8, 0.001)])
def test_a_page_of_a_pdf_that_is_a_line_is_refused(
    job: Job, tmp_path: Path, size: tuple[float, float]
) -> None:
    message = handle_upload(job, str(_pdf(tmp_path / "a.pdf", size)))["message"]
    assert "points large" in message or "has no size" in message or "cannot be read" in message


def _read_elsewhere(path: Path) -> subprocess.CompletedProcess[str]:
    """Read an archive in a process of its own, which prints its largest memory in KiB."""
    program = r"""
import re, sys
from pathlib import Path
from minion_server.library.archive import read_whole
from minion_server.library.settings import Limits

read_whole(Path(sys.argv[1]), Limits())
print(re.search(r"VmHWM:\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""
    command = [sys.executable, "-c", program, str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.program
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_a_page_of_a_pdf_that_would_fill_the_memory_ends_its_process(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(_pdf_bomb())
    assert _read_elsewhere(path).returncode == -signal.SIGABRT


@pytest.mark.program
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_many_pages_of_a_pdf_need_the_memory_of_few(tmp_path: Path) -> None:
    sizes = []
    for pages in (2, 60):
        path = tmp_path / f"{pages}.pdf"
        first, *others = (
            Image.effect_noise((1000, 1400), 100).convert("RGB") for _ in range(pages)
        )
        first.save(path, "PDF", save_all=True, append_images=others, resolution=200)
        sizes.append(int(_read_elsewhere(path).stdout))
    assert sizes[1] < sizes[0] + 30 * 2**10


def test_a_pdf_is_taken_into_the_library(
    job: Job, tmp_path: Path, library: Path, visible: Callable[[], list[str]]
) -> None:
    result = handle_upload(job, str(_pdf(tmp_path / "a.pdf", (72, 72), (72, 72))))
    assert result["message"] == "Added to the Library with 2 pages."
    assert visible() == ["a.pdf"]
    assert list((library / ".minion" / "thumbs").glob("*/*.jpg"))


@pytest.mark.parametrize("cut", [100, 0.3, 0.6, 0.95])
def test_a_pdf_that_ends_too_early_is_refused_or_repaired(
    job: Job, tmp_path: Path, cut: float
) -> None:
    path = _pdf(tmp_path / "a.pdf", *[(72, 72)] * 5)
    content = path.read_bytes()
    path.write_bytes(content[: int(cut if cut > 1 else len(content) * cut)])
    result = handle_upload(job, str(path))
    # PDFium rebuilds what it can.
    assert result["success"] or "PDF file is broken" in result["message"]


def test_an_encrypted_pdf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(ENCRYPTED_PDF)
    with pytest.raises(RefusedError, match="The archive is encrypted"), open_archive(path, LIMITS):
        pass


def test_a_pdf_of_too_many_pages_is_refused(tmp_path: Path) -> None:
    path = _pdf(tmp_path / "a.pdf", *[(72, 72)] * 5)
    with (
        pytest.raises(RefusedError, match="more than 4 entries"),
        open_archive(path, Limits(entries=4)),
    ):
        pass


def _zstd_tar(path: Path, entries: dict[str, bytes], **options: int) -> Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    parameters = {
        getattr(zstd.CompressionParameter, name): value for name, value in options.items()
    }
    path.write_bytes(zstd.compress(plain.getvalue(), options=parameters or None))
    return path


def test_a_tar_of_zstd_is_read(tmp_path: Path, draw: Draw) -> None:
    pages = {f"{number}.jpg": draw(number) for number in (3, 1, 2)}
    path = _zstd_tar(tmp_path / "a.tar.zst", pages | {"x/ComicInfo.xml": b"<x/>"})
    with open_archive(path, LIMITS) as archive:
        assert [page.name for page in archive.pages] == ["1.jpg", "2.jpg", "3.jpg"]
        assert [archive.read(page) for page in archive.pages] == [
            pages[f"{n}.jpg"] for n in (1, 2, 3)
        ]
        assert archive.read_file("comicinfo.xml", 1000) == b"<x/>"
        archive.drain()


def test_a_tar_of_zstd_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = _zstd_tar(tmp_path / "a.tar.zst", {"1.jpg": bytes(50_000_000)})
    with (
        pytest.raises(RefusedError, match="unpacks to more than 200 times its size"),
        open_archive(path, LIMITS),
    ):
        pass


def test_a_window_that_would_fill_the_memory_is_refused(tmp_path: Path, draw: Draw) -> None:
    path = _zstd_tar(tmp_path / "a.tar.zst", {"1.jpg": draw(1)}, window_log=31)
    # A frame header without the size of the content states the window.
    plain = zstd.decompress(
        path.read_bytes(), options={zstd.DecompressionParameter.window_log_max: 31}
    )
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31})
    path.write_bytes(compressor.compress(plain) + compressor.flush())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RefusedError, match="The tar archive is broken"), open_archive(path, LIMITS):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    ("module", "name"),
    [("pypdfium2", "a.pdf"), ("backports.zstd", "a.tar.zst"), ("libarchive", "a.rar")],
)
def test_a_reader_that_is_not_installed_is_named(
    job: Job, tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    path = tmp_path / name
    match name:
        case "a.pdf":
            _pdf(path, (72, 72))
        case "a.rar":
            path.write_bytes(write_rar({"1.jpg": draw(1)}))
        case _:
            _zstd_tar(path, {"1.jpg": draw(1)})
    monkeypatch.setitem(sys.modules, module, None)
    result = handle_upload(job, str(path))
    assert result["success"] == 0
    package = {"libarchive": "libarchive-c"}.get(module, module)
    assert f"needs {package}: pip install minion-server[library]" in result["message"]
