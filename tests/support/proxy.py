"""A TCP proxy that breaks connections, with or without closing them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Passes bytes on to a port on loopback.

    Attributes:
        target: That port; a change applies to new connections.
        port: Its own.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._forth, self._back = asyncio.Event(), asyncio.Event()
        self.mend()
        self._writers: set[asyncio.StreamWriter] = set()
        self._stranded: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.close()
        self.reset()
        self.mend()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Stop passing bytes on, without closing anything."""
        self._forth.clear()
        self._back.clear()

    def mute(self) -> None:
        """Pass requests on from now on, but no responses."""
        self._back.clear()

    def mend(self) -> None:
        self._forth.set()
        self._back.set()

    def reset(self) -> None:
        """End all connections at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def strand(self) -> None:
        """Pass nothing on over existing connections, without closing them."""
        self._stranded |= self._writers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        await asyncio.gather(
            self._pass(reader, back, self._forth), self._pass(there, writer, self._back)
        )
        self._writers -= {writer, back}
        self._stranded -= {writer, back}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(65_536):
                await way.wait()
                if writer in self._stranded:
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
