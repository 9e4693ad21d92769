"""A client of this process's own servicers, for parts of the server that are clients."""

from __future__ import annotations

from dataclasses import dataclass

from minion_client import AsyncClient
from minion_client._api.aio_channel import AioChannel
from minion_client.endpoint import Endpoint

from minion_server.rpc.local import LocalChannel


@dataclass(frozen=True, slots=True, kw_only=True)
class _LocalEndpoint(Endpoint):
    channel: LocalChannel

    def open_aio(self) -> LocalChannel:
        """Return the channel that is open always."""
        return self.channel


class LocalClient(AsyncClient):
    """A client without the wire.

    Args:
        channel: The channel to the servicers.
        key: The server's key.
    """

    def __init__(self, channel: LocalChannel, *, key: str) -> None:
        super().__init__(key=key)
        self._channel = AioChannel(_LocalEndpoint(key=key, channel=channel))
