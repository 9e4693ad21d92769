"""A route for Starlette that looks at the path as it was sent."""

from __future__ import annotations

from typing import Any, NoReturn

from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from minion_rest_bridge.request import raw_path


class PrefixRoute(BaseRoute):
    """Gives all requests whose path begins with a prefix to an application.

    Starlette's `Mount` matches decoded paths, takes a line break for the end of one, and rewrites
    the scope of every request.
    """

    def __init__(self, prefix: str, app: ASGIApp) -> None:
        self._prefix = prefix
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a request is for the application."""
        is_match = scope["type"] == "http" and raw_path(scope).startswith(self._prefix)
        return (Match.FULL if is_match else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> NoReturn:
        """Raise NoMatchFound: the route has no name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._app(scope, receive, send)
