"""The page at ``/``: files from ``web/`` in the package, nothing from anywhere else."""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

# What the page is made of; other files in the folder, licences for example, are not served.
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
    "png": "image/png",
}
_HEADERS = {
    # The page talks to its own origin only; previews of chosen images are blob: URLs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    # No other site's window has a handle on this one, and of the machine's devices only the camera may be asked for.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def _read(folder: Traversable, path: str) -> Iterator[tuple[str, _File]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{path}{entry.name}/")
        elif media_type := _MEDIA_TYPES.get(entry.name.rpartition(".")[2]):
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            yield "/" if entry.name == "index.html" else path + entry.name, _File(content, media_type, etag)


# Read once: they are small, and reading a file for each request would take a thread.
_FILES = dict(_read(files("resnet_service") / "web", "/web/"))
PATHS = frozenset(_FILES)


def install(app: FastAPI) -> None:
    """Serve the page's files, and only these, at fixed paths."""
    for path in sorted(PATHS):
        app.add_route(path, _page, methods=["GET"], include_in_schema=False)


async def _page(request: Request) -> Response:
    content, media_type, etag = _FILES[request.url.path]
    headers = {**_HEADERS, "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(content, headers=headers, media_type=media_type)
