"""`/openapi.json` and `/docs`: the API's description, and Swagger UI, which shows it offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor
from openapi_ui_bundles import swagger_ui
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from minion_rest_bridge.comments import load_comments
from minion_rest_bridge.json_text import dumps
from minion_rest_bridge.middleware import Compressed, GetOnly
from minion_rest_bridge.openapi import describe
from minion_rest_bridge.request import prefix_of
from minion_rest_bridge.responses import CONTENT_TYPE

STATIC: Final = Path(__file__).parent / "static"
PAGE_HEADERS: Final = {
    # Swagger UI styles its elements inline and draws icons from data.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'",
}


def docs_routes(services: Sequence[ServiceDescriptor]) -> list[BaseRoute]:
    """Return the routes that show the API of the services."""
    description = describe(services, load_comments())

    async def show_description(scope: Scope, receive: Receive, send: Send) -> None:
        prefix = prefix_of(scope)
        servers = [{"url": prefix}] if prefix else description["servers"]
        body = dumps({**description, "servers": servers})
        await Response(body, media_type=CONTENT_TYPE)(scope, receive, send)

    page = HTMLResponse((STATIC / "docs.html").read_bytes(), headers=PAGE_HEADERS)
    return [
        Route("/", GetOnly(_lead_to_docs)),
        Route("/openapi.json", GetOnly(Compressed(show_description))),
        Route("/docs", GetOnly(page)),
        Mount("/docs/static", Compressed(StaticFiles(directory=STATIC))),
        Mount("/docs/swagger", Compressed(StaticFiles(directory=swagger_ui.static_path))),
    ]


async def _lead_to_docs(scope: Scope, receive: Receive, send: Send) -> None:
    prefix = prefix_of(scope)
    # Relative to where the client is, which may be under a prefix that is not known here.
    await RedirectResponse(f"{prefix}/docs" if prefix else "docs")(scope, receive, send)
