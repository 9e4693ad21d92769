"""Draws thumbnails and pages for reading from image files, and compares covers.

Pillow is imported with the first image: the tasks must load fast, and without it.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from minion_server.library.errors import LibraryError, PageError, reason

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The largest width and height of a drawn image in pixels, and the quality of its JPEG file."""

    width: int
    height: int
    quality: int
    enlarge: bool


COVER: Final = Style(width=1000, height=500, quality=80, enlarge=True)
PAGE: Final = Style(width=1000, height=500, quality=50, enlarge=True)
READING: Final = Style(width=1064, height=16_000, quality=50, enlarge=False)

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
# Decoded, an image takes up to four bytes a pixel: those of more pixels are drawn one at a time.
_LARGE_PIXELS = 12_000_000
_large = threading.Lock()
_HASH_SIDE = 8


def require_pillow() -> None:
    """Raise LibraryError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401, PLC0415 - see the module
    except ImportError as error:
        raise LibraryError(
            "thumbnails need Pillow, which is not installed: pip install minion-server[library]"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow, in this thread and around all threads that draw.

    It warns of images beyond a size of its own, not ours, and of damaged metadata.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def draw(content: bytes, style: Style, *, pixels: int) -> bytes:
    """Draw an image file as a JPEG file. Call it under `quiet`.

    Args:
        content: The image file.
        style: How.
        pixels: Width times height beyond which an image is refused before it is decoded.

    Raises:
        PageError: It is no image that can be read, or too large.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - see the module

    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return _draw(image, style, pixels)
    except PageError:
        raise
    except UnidentifiedImageError as error:
        raise PageError("not an image that can be read") from error
    except Exception as error:
        # Decoders raise anything on hostile images, struct.error and IndexError included.
        raise PageError(f"the image cannot be read: {reason(error)}") from error


def thumbhash(content: bytes) -> str:
    """Return the perceptual hash of a JPEG file that `draw` made, as 32 hex digits.

    Whether each of 8 x 8 gray pixels is brighter than its right and its lower neighbour: 128 bits,
    of which few differ between an image and a smaller or recompressed one. "" for a blank image.
    """
    from PIL import Image  # noqa: PLC0415 - see the module

    side = _HASH_SIDE + 1
    with Image.open(io.BytesIO(content)) as image:
        gray = image.convert("L").resize((side, side), Image.Resampling.BOX).tobytes()
    bits = 0
    for step in (1, side):
        for row in range(_HASH_SIDE):
            for column in range(_HASH_SIDE):
                place = row * side + column
                bits = bits << 1 | (gray[place] > gray[place + step])
    return f"{bits:032x}" if bits else ""


def _draw(image: Image.Image, style: Style, pixels: int) -> bytes:
    from PIL import Image  # noqa: PLC0415 - see the module

    if image.width * image.height > pixels:
        raise PageError(f"the image has {image.width} x {image.height} pixels, more than {pixels}")
    is_large = image.width * image.height > _LARGE_PIXELS
    with _large if is_large else nullcontext():
        # Decodes a PNG.
        orientation = _orientation(image)
        if orientation in _SIDEWAYS:
            height, width = _fit(image.height, image.width, style)
        else:
            width, height = _fit(image.width, image.height, style)
        # Lets the JPEG decoder skip what the drawn image is too small to show.
        image.draft(None, (width * 2, height * 2))
        drawn = _plain(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if orientation in _UPRIGHT:
        drawn = drawn.transpose(Image.Transpose[_UPRIGHT[orientation]])
    with io.BytesIO() as out:
        _opaque(drawn).save(out, "JPEG", quality=style.quality)
        return out.getvalue()


def _fit(width: int, height: int, style: Style) -> tuple[int, int]:
    scale = min(style.height / height, style.width / width)
    if not style.enlarge:
        scale = min(scale, 1.0)
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
