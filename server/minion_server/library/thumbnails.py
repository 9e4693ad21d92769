"""Makes thumbnails of pages as LANraragi does.

Pillow is imported with the first thumbnail: the tasks must load fast, and without it.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from minion_server.library.errors import LibraryError, PageError, accessing, reason

if TYPE_CHECKING:
    from PIL import Image

HEIGHT = 500
"""Height of a thumbnail in pixels."""

WIDEST = 1000
"""Largest width of a thumbnail in pixels: a banner gets less height instead."""

COVER_QUALITY = 80
PAGE_QUALITY = 50

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "HEIF", "JXL")
# What turns an image upright by EXIF's Orientation (CIPA DC-008, 4.6.5.1); from 5 it is sideways.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_SIDEWAYS = (5, 6, 7, 8)
_WIDE_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
_WHITE = (255, 255, 255, 255)


def require_pillow() -> None:
    """Raise LibraryError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401, PLC0415 - see the module
    except ImportError as error:
        raise LibraryError(
            "thumbnails need Pillow, which is not installed: pip install minion-server[library]"
        ) from error


def cover_path(directory: Path, archive_id: str) -> Path:
    """Return where the thumbnail of an archive's cover is."""
    return directory / archive_id[:2] / f"{archive_id}.jpg"


def page_path(directory: Path, archive_id: str, page: int) -> Path:
    """Return where the thumbnail of a page is; pages count from 1."""
    return directory / archive_id[:2] / archive_id / f"{page}.jpg"


def draw(content: bytes, *, quality: int, pixels: int) -> bytes:
    """Make the thumbnail of an image file, as a JPEG file.

    Args:
        content: The image file.
        quality: The JPEG's quality.
        pixels: Width times height beyond which an image is refused before it is decoded.

    Raises:
        PageError: It is no image that can be read, or too large.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - see the module

    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        # Pillow warns of images beyond a size of its own, not ours, and of damaged metadata, which
        # a thumbnail does not need.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=formats) as image:
                return _draw(image, quality, pixels)
        except PageError:
            raise
        except UnidentifiedImageError as error:
            raise PageError("not an image that can be read") from error
        except Exception as error:
            # Decoders raise anything on hostile images, struct.error and IndexError included.
            raise PageError(f"the image cannot be read: {reason(error)}") from error


def _draw(image: Image.Image, quality: int, pixels: int) -> bytes:
    from PIL import Image  # noqa: PLC0415 - see the module

    if image.width * image.height > pixels:
        raise PageError(f"the image has {image.width} x {image.height} pixels, more than {pixels}")
    orientation = _orientation(image)
    if orientation in _SIDEWAYS:
        height, width = _fit(image.height, image.width)
    else:
        width, height = _fit(image.width, image.height)
    size = width, height
    # Lets the JPEG decoder skip what the thumbnail is too small to show.
    image.draft(None, (size[0] * 2, size[1] * 2))
    thumbnail = _plain(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if orientation in _UPRIGHT:
        thumbnail = thumbnail.transpose(Image.Transpose[_UPRIGHT[orientation]])
    with io.BytesIO() as out:
        _opaque(thumbnail).save(out, "JPEG", quality=quality)
        return out.getvalue()


def _fit(width: int, height: int) -> tuple[int, int]:
    scale = min(HEIGHT / height, WIDEST / width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - damaged metadata of any kind: shown as stored
        return 1
    return orientation if isinstance(orientation, int) else 1


def _plain(image: Image.Image) -> Image.Image:
    """Return an image in a mode that can be scaled smoothly."""
    if image.mode in _WIDE_MODES:
        # Pillow clips 16 bits where they must be scaled.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in {"L", "RGB"}:
        return image
    return image.convert("RGB")


def _opaque(image: Image.Image) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - see the module

    if image.mode != "RGBA":
        return image
    paper = Image.new("RGBA", image.size, _WHITE)
    return Image.alpha_composite(paper, image).convert("RGB")


def write(path: Path, content: bytes) -> None:
    """Write a thumbnail so that no reader ever sees a part of it, or raise LibraryError."""
    with accessing(f"the thumbnail {path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                # mkstemp keeps the file to its owner; a web server of another user may serve it.
                os.fchmod(descriptor, 0o644)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(temporary).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
