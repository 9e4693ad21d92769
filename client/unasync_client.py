"""Generate the synchronous client from the asynchronous one: `python unasync_client.py OUTPUT`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from unasync import Rule, unasync_files

_SOURCE = Path(__file__).parent / "minion_client" / "aio.py"
_TOKENS = {
    "AioChannel": "Channel",
    "AsyncClient": "Client",
    "aclosing": "closing",
    "aio_channel": "channel",
    "asyncio": "time",
}
_TEXTS = {
    '"""The asynchronous client."""': (
        '"""The synchronous client."""\n\n'
        "# Generated from aio.py by `make gen`: make changes there."
    ),
    "for use on one event loop.": "safe to share among threads.",
}


def main(output: Path) -> None:
    """Write the synchronous client to a file."""
    text = _SOURCE.read_text()
    for before, after in _TEXTS.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "aio.py"), Path(folder, "client.py")
        source.write_text(text)
        unasync_files([str(source)], [Rule("/aio.py", "/client.py", _TOKENS)])
        text = result.read_text()
    text = _ruff("check", "--quiet", "--select", "I", "--fix", text=text)
    output.write_text(_ruff("format", text=text))


def _ruff(*arguments: str, text: str) -> str:
    # The name makes ruff sort imports as within the package.
    name = str(_SOURCE.with_name("client.py"))
    command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", name, "-"]
    return subprocess.run(command, input=text, capture_output=True, check=True, text=True).stdout  # noqa: S603 - not user input


if __name__ == "__main__":
    main(Path(sys.argv[1]))
