"""The file of the API key, which is created at the first start."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from minion_server.domain.errors import Conflict

KEY_FILE = "api-key"
KEY_BYTES = 32


def read_key(path: Path) -> str | None:
    """Return the key in a file, or None if the file does not exist.

    Raises:
        Conflict: The file cannot be read, or is empty.
    """
    try:
        key = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Conflict(f"cannot read the key file {path}: {error}") from error
    if not key:
        raise Conflict(f"the key file {path} is empty")
    return key


def make_key(path: Path) -> str:
    """Create a key and write it to a file that only its owner can read.

    Returns:
        The key in the file, which another process may have created at the same time.
    """
    key = secrets.token_urlsafe(KEY_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The file is complete or does not exist, even after a power failure.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link does not replace an existing file.
        path.hardlink_to(unfinished)
    except FileExistsError:
        return read_key(path) or key
    except OSError:
        # Some file systems do not support links.
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return key
