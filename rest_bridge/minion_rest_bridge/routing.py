"""Routes for Starlette that look at the path as it was sent, and at the method last."""

from __future__ import annotations

from typing import Any, NoReturn

from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from minion_rest_bridge.answers import send_failure, send_options
from minion_rest_bridge.errors import method_not_allowed
from minion_rest_bridge.request import raw_path


class GetOnly:
    """Refuses requests of other methods than GET and HEAD.

    Starlette's `Route` would leave them to whatever route comes after it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await send_options(send, ["GET", "HEAD"])
        else:
            error = method_not_allowed(["GET"])
            await send_failure(send, error.failure, error.headers)


class PrefixRoute(BaseRoute):
    """Gives all requests whose path begins with a prefix to an application.

    Starlette's `Mount` matches decoded paths, takes a line break for the end of one, and rewrites
    the scope of every request.
    """

    def __init__(self, prefix: str, app: ASGIApp) -> None:
        self._prefix = prefix
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is the application's."""
        is_ours = scope["type"] == "http" and raw_path(scope).startswith(self._prefix)
        return (Match.FULL if is_ours else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> NoReturn:
        """Answer no path: nothing here has a name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._app(scope, receive, send)
