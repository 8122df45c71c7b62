"""The reference at ``/docs``: Swagger UI from ``swagger/`` in the package, nothing from anywhere else."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

DOCUMENT = "/openapi.json"

_FILES = {
    "/docs": ("index.html", "text/html; charset=utf-8"),
    "/docs/page.css": ("page.css", "text/css; charset=utf-8"),
    "/docs/start.js": ("start.js", "text/javascript; charset=utf-8"),
    "/docs/swagger-ui.css": ("swagger-ui.css", "text/css; charset=utf-8"),
    "/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
}
PATHS = frozenset(_FILES)

_HEADERS = {
    # A policy of its own, since the page at / allows less: Swagger UI sets style attributes, its icons are data: URLs,
    # and answers that are images are blob: URLs. No script is inline here either.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@cache
def _read(path: str) -> _File:
    """Read on first use: two megabytes that most processes are never asked for are no part of their start."""
    name, media_type = _FILES[path]
    content = (files("resnet_service") / "swagger" / name).read_bytes()
    return _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def install(app: FastAPI) -> None:
    """Serve the viewer's files, and only these, at fixed paths."""
    for path in sorted(PATHS):
        app.add_route(path, _viewer, methods=["GET"], include_in_schema=False)


async def _viewer(request: Request) -> Response:
    content, media_type, etag = _read(request.url.path)
    headers = {**_HEADERS, "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(content, headers=headers, media_type=media_type)
