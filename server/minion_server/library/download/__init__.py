"""Downloads one URL safely into a file."""

from minion_server.library.download.fetch import Download, fetch

__all__ = ["Download", "fetch"]
