"""The key that callers show: given, or made at the first start and kept."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from minion_server.domain.errors import Conflict

KEY_FILE = "api-key"
KEY_BYTES = 32


def read_key(path: Path) -> str | None:
    """Read a key file; None if there is none.

    Raises:
        Conflict: It cannot be read, or is empty.
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
    """Make a key and keep it in a file that only its owner can read.

    Returns:
        The key in the file: another process may have made one at the same time.
    """
    key = secrets.token_urlsafe(KEY_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Complete under its name or not there at all, whenever the power fails.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a renaming, it leaves a file that is there.
        path.hardlink_to(unfinished)
    except FileExistsError:
        return read_key(path) or key
    except OSError:
        # Some file systems have no links.
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return key
