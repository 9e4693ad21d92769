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

from minion_rest_bridge.comments import load_comments
from minion_rest_bridge.json_out import CONTENT_TYPE, dumps
from minion_rest_bridge.openapi import describe
from minion_rest_bridge.routing import GetOnly

STATIC: Final = Path(__file__).parent / "static"
PAGE_HEADERS: Final = {
    # Swagger UI styles its elements inline and draws icons from data.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'",
}


def docs_routes(services: Sequence[ServiceDescriptor]) -> list[BaseRoute]:
    """Answer the routes that show the API.

    Args:
        services: What is described.
    """
    body = dumps(describe(services, load_comments()))
    page = HTMLResponse((STATIC / "docs.html").read_bytes(), headers=PAGE_HEADERS)
    return [
        Route("/", GetOnly(RedirectResponse("/docs"))),
        Route("/openapi.json", GetOnly(Response(body, media_type=CONTENT_TYPE))),
        Route("/docs", GetOnly(page)),
        Mount("/docs/static", StaticFiles(directory=STATIC)),
        Mount("/docs/swagger", StaticFiles(directory=swagger_ui.static_path)),
    ]
