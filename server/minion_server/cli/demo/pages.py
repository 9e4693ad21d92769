"""Draw a comic of a few pages, and pack it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

PAGE_SIZE = 900, 1_280
BACKGROUNDS = ("#f4e8d0", "#d0e4f4", "#e4f4d0", "#f4d0e4", "#e0d0f4")


def draw_page(number: int) -> bytes:
    """Draw one page, and return it as JPEG."""
    image = Image.new("RGB", PAGE_SIZE, BACKGROUNDS[number % len(BACKGROUNDS)])
    draw = ImageDraw.Draw(image)
    for row in range(3):
        top = 40 + 400 * row
        left = 80 + (170 * number + 230 * row) % 600
        draw.rectangle((40, top, 860, top + 360), outline="black", width=6)
        circle = (left, top + 100, left + 160, top + 260)
        draw.ellipse(circle, fill="#ffcc33", outline="black", width=4)
    draw.text((450, 1_256), f"page {number}", fill="black", anchor="mm")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_comic(path: Path, pages: int) -> None:
    """Write an archive of drawn pages."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1, pages + 1):
            archive.writestr(f"page_{number:02}.jpg", draw_page(number))
