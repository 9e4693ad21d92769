"""`server.json` in a data directory, from which commands on this machine read server addresses."""

from __future__ import annotations

import json
import os
from pathlib import Path

ADDRESS_FILE = "server.json"


class AddressBook:
    """The addresses of the server of a data directory.

    Args:
        data_dir: The directory, which is created when addresses are written.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / ADDRESS_FILE
        self._written: str | None = None

    def write(self, *, grpc: str, http: str | None) -> None:
        """Write the addresses atomically."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        self._written = json.dumps({"grpc": grpc, "http": http})
        unfinished.write_text(self._written, encoding="utf-8")
        unfinished.replace(self._path)

    def remove(self) -> None:
        """Remove the addresses that were written, unless another server has replaced them."""
        try:
            if self._written and self._path.read_text("utf-8") == self._written:
                self._path.unlink(missing_ok=True)
        except (OSError, ValueError):
            return

    def grpc(self) -> str | None:
        """Return the address of the gRPC API, or None if no server has written it."""
        try:
            target = json.loads(self._path.read_text(encoding="utf-8"))["grpc"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return target if isinstance(target, str) and target else None
