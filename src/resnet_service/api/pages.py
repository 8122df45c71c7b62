"""The page at ``/``: three files from the package, nothing from anywhere else."""

from importlib.resources import files

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

_WEB = files("resnet_service") / "web"
_PAGES = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}
PATHS = frozenset(_PAGES)
_HEADERS = {
    # The page talks to its own origin only; previews of chosen files are blob: URLs, the absent icon is a data: URL.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    # No other site's window has a handle on this one, and of the machine's devices only the camera may be asked for.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def install(app: FastAPI) -> None:
    """Serve the page's files, and only these, at fixed paths."""
    for path in _PAGES:
        app.add_route(path, _page, methods=["GET"], include_in_schema=False)


async def _page(request: Request) -> Response:
    # A part of a few kilobytes helps nobody, and Starlette refuses odd ranges in a shape that is not ours.
    request.scope["headers"] = [field for field in request.scope["headers"] if field[0] != b"range"]
    return FileResponse(str(_WEB / _PAGES[request.url.path]), headers=_HEADERS)
