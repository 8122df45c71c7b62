"""The files of the page at ``/`` and of the API reference at ``/docs``, served from the package."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

# Files of other types in these folders, licences for example, are not served.
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
    "png": "image/png",
}
_HEADERS = {
    # No window of another site has a handle on this one.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_PAGE_HEADERS = {
    **_HEADERS,
    # The page talks to its own origin only; previews of chosen images are blob: URLs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    # Of the visitor's devices, the page may ask for the camera only.
    "Permissions-Policy": "camera=(self), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_REFERENCE_HEADERS = {
    **_HEADERS,
    # Swagger UI needs more than the page: it sets style attributes, its icons are data: URLs, and images in responses
    # are blob: URLs. It needs no inline script.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class _File(NamedTuple):
    source: Traversable
    media_type: str
    headers: dict[str, str]


def _find(folder: Traversable, index: str, prefix: str, headers: dict[str, str]) -> Iterator[tuple[str, _File]]:
    """Yield the files to serve from ``folder`` by their paths: ``index`` for index.html, others below ``prefix``."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _find(entry, index, f"{prefix}{entry.name}/", headers)
        elif media_type := _MEDIA_TYPES.get(entry.name.rpartition(".")[2]):
            path = index if entry.name == "index.html" else prefix + entry.name
            yield path, _File(entry, media_type, headers)


_PACKAGE = files("resnet_service")
_FILES = {
    **dict(_find(_PACKAGE / "web", "/", "/web/", _PAGE_HEADERS)),
    **dict(_find(_PACKAGE / "swagger", "/docs", "/docs/", _REFERENCE_HEADERS)),
}
PATHS = frozenset(_FILES)


def install(app: FastAPI) -> None:
    """Serve these files, and no others, at fixed paths."""
    for path in sorted(PATHS):
        app.add_route(path, _serve, methods=["GET"], include_in_schema=False)


@cache
def _content(path: str) -> tuple[bytes, str]:
    """Return a file's bytes and its ETag; read on first use, since most processes are never asked for Swagger UI."""
    content = _FILES[path].source.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'


async def _serve(request: Request) -> Response:
    path = request.url.path
    content, etag = _content(path)
    headers = {**_FILES[path].headers, "ETag": etag}
    # Of a list, a weak tag matches too (RFC 9110, section 13.1.2); ``*`` stands for any content.
    known = ",".join(request.headers.getlist("if-none-match"))
    if known.strip() == "*" or etag in known:
        return Response(None, 304, headers)
    return Response(content, headers=headers, media_type=_FILES[path].media_type)
