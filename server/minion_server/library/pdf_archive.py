"""Reads PDF files: each page is drawn as a JPEG file, as LANraragi does."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, BinaryIO, Final

from minion_server.library import pages
from minion_server.library.errors import EncryptedError, PageError, RefusedError, parsing
from minion_server.library.memory import bounded_memory
from minion_server.library.pages import Page
from minion_server.library.settings import Limits

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

# Points of 1/72 inch to pixels at 200 dpi.
_SCALE: Final = 200 / 72
# A page of A2 at 200 dpi; a larger one gets fewer dots. Four bytes a pixel are held in memory.
_MOST_PIXELS: Final = 16_000_000
_QUALITY: Final = 80


class PdfArchive:
    """A PDF file; its pages are `1.jpg`, `2.jpg` and so on."""

    def __init__(self, file: BinaryIO, _size: int, limits: Limits) -> None:
        self._file = file
        self._pixels = min(_MOST_PIXELS, limits.pixels)
        with parsing("The PDF file is broken"), bounded_memory():
            self._document = self._open()
            count = len(self._document)
            pages.require_few(count, limits)
            self.pages: tuple[Page, ...] = tuple(
                Page(name=f"{number}.jpg", position=number, entry=number - 1)
                for number in range(1, count + 1)
            )
            if not self.pages:
                raise RefusedError("The archive holds no images.")

    def read(self, page: Page) -> bytes:
        """See `Archive`."""
        with parsing(f"{page.name!r} cannot be read", PageError), bounded_memory():
            # An open document keeps the images of all pages drawn so far.
            self._document.close()
            self._document = self._open()
            found = self._document[page.entry]
            try:
                width, height = found.get_size()
                area = width * height
                if not 0 < area < math.inf:
                    raise PageError(f"{page.name!r} has no size.")
                scale = min(_SCALE, math.sqrt(self._pixels / area))
                # Each side is at least one pixel, however narrow the page is.
                if max(width, height) * scale > self._pixels:
                    raise PageError(f"{page.name!r} is {width:g} x {height:g} points large.")
                bitmap = found.render(scale=scale)
                try:
                    with io.BytesIO() as out:
                        bitmap.to_pil().convert("RGB").save(out, "JPEG", quality=_QUALITY)
                        return out.getvalue()
                finally:
                    bitmap.close()
            finally:
                found.close()

    def _open(self) -> PdfDocument:
        # Only this format needs it.
        import pypdfium2  # noqa: PLC0415

        self._file.seek(0)
        try:
            return pypdfium2.PdfDocument(self._file)
        except pypdfium2.PdfiumError as error:
            if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
                raise EncryptedError from error
            raise

    def read_file(self, _name: str, _limit: int) -> None:
        """See `Archive`: a PDF file has no files inside."""

    def drain(self) -> None:
        """Do nothing: there is nothing after the pages."""

    def close(self) -> None:
        """See `Archive`."""
        self._document.close()
