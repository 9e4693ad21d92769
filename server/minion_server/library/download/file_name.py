"""Names of downloaded files: from the server's response, but safe on every file system."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

from minion_server.library.archive import Format, is_archive_name

LONGEST: Final = 255 - len(".upload")
"""Bytes of a name in UTF-8: LANraragi adds this suffix to files that it takes in."""

_FALLBACK: Final = "download"
_PARAMETER: Final = re.compile(rb';\s*([^\s=;"]+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^;]*))', re.DOTALL)
_EXTENDED: Final = re.compile(rb"(?i)(utf-8|iso-8859-1)'[^']*'(.*)", re.DOTALL)
_FORBIDDEN: Final = frozenset('\\/:"*?<>|')
_CONTROLS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Marks that make a name look like another.
_DIRECTIONS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Names of devices on Windows, also with an extension.
_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\..*)?",
    re.IGNORECASE | re.DOTALL,
)
_EXTENSION: Final = re.compile(r"(?:\.tar)?\.[^.]*$", re.IGNORECASE | re.DOTALL)
_EXTENSIONS_OF_TYPES: Final = {
    "application/epub+zip": ".epub",
    "application/pdf": ".pdf",
    "application/vnd.comicbook+zip": ".cbz",
    "application/vnd.comicbook-rar": ".cbr",
    "application/x-cb7": ".cb7",
    "application/x-cbr": ".cbr",
    "application/x-cbt": ".cbt",
    "application/x-cbz": ".cbz",
}
_EXTENSIONS_OF_FORMATS: Final = {
    Format.ZIP: ".zip",
    Format.TAR: ".tar",
    Format.GZIP: ".tar.gz",
    Format.BZIP2: ".tar.bz2",
    Format.XZ: ".xz",
    Format.RAR: ".rar",
    Format.SEVEN_ZIP: ".7z",
    Format.ZSTANDARD: ".tar.zst",
    Format.PDF: ".pdf",
}


def disposition_name(header: bytes) -> str | None:
    """Return the file name of a Content-Disposition header, or None (RFC 6266, RFC 8187).

    `filename*` comes first. The other one is UTF-8 if it can be, as most servers send it.
    """
    plain: str | None = None
    for match in _PARAMETER.finditer(b";" + header):
        parameter, quoted, token = match[1].lower(), match[2], match[3]
        value = token.strip(b' \t"') if quoted is None else quoted
        if parameter == b"filename*" and (extended := _EXTENDED.fullmatch(value)):
            charset = extended[1].decode()
            return unquote_to_bytes(extended[2]).decode(charset, "replace")
        if parameter == b"filename" and plain is None:
            if quoted is not None:
                value = re.sub(rb"\\(.)", rb"\1", value, flags=re.DOTALL)
            try:
                plain = value.decode()
            except UnicodeDecodeError:
                plain = value.decode("latin-1")
    return plain


def file_name(suggested_name: str, content_type: str, archive_format: Format) -> str:
    """Return a file name that is close to a suggested one, and safe.

    Invalid characters are left out as LANraragi does, which keeps titles that have a slash. A name
    without an archive's extension gets that of the type, or of the format.

    Args:
        suggested_name: Any text.
        content_type: Media type in lower case, without parameters, or empty.
        archive_format: Format of the content.
    """
    name = "".join(one for one in suggested_name if _is_allowed(one)).strip(". \u3000")
    name = name or _FALLBACK
    if _RESERVED.fullmatch(name):
        name = f"_{name}"
    if not is_archive_name(name):
        name += _EXTENSIONS_OF_TYPES.get(content_type) or _EXTENSIONS_OF_FORMATS[archive_format]
    match = _EXTENSION.search(name)
    extension = match[0] if match else ""
    stem = name.removesuffix(extension).encode()[: LONGEST - len(extension.encode())]
    return stem.decode(errors="ignore").rstrip(". ") + extension


def _is_allowed(character: str) -> bool:
    return (
        character not in _FORBIDDEN
        and character not in _DIRECTIONS
        and unicodedata.category(character) not in _CONTROLS
    )
