"""A client of this process's own servicers, for parts of the server that are clients."""

from __future__ import annotations

from dataclasses import dataclass

from minion_client import AsyncClient
from minion_client.endpoint import Endpoint

from minion_server.rpc.local import LocalChannel


@dataclass(frozen=True, slots=True, kw_only=True)
class _LocalEndpoint(Endpoint):
    channel: LocalChannel

    def open_aio(self) -> LocalChannel:
        """Return the channel that is open always."""
        return self.channel


def local_client(channel: LocalChannel, *, key: str) -> AsyncClient:
    """Return a client whose calls do not pass the network.

    Args:
        channel: The channel to the servicers.
        key: The server's key.
    """
    return AsyncClient(_LocalEndpoint(key=key, channel=channel))
