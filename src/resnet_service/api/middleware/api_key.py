"""API keys: requests without a valid one are answered 401."""

from collections.abc import Collection, Iterable, Iterator

from starlette.types import ASGIApp, Receive, Scope, Send

from resnet_service.api.problem_details import respond_to
from resnet_service.api_keys import KeyRing
from resnet_service.errors import Unauthorized


class APIKeyMiddleware:
    """Answer 401 to a request without a valid key, before it reaches a route, takes a slot or sends its body.

    ``open_paths`` can be read without a key. All other paths need one, including paths that do not exist: a new route
    is closed until it is opened on purpose, and clients without a key cannot find out which routes exist.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing, open_paths: Collection[str]) -> None:
        self._app = app
        self._ring = ring
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        # A request may carry credentials for another service, a proxy for example; one valid key is enough.
        presented = list(_presented(scope["headers"]))
        if any(self._ring.keys.accept(key) for key in presented):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            problem = "The API key is not valid." if presented else "An API key is required."
            error = Unauthorized(f"{problem} Send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.")
            await respond_to(error, scope["path"])(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        # Open for reading only: the page is at the path to which Hugging Face's client posts images.
        return scope["path"] in self._open and scope.get("method") in ("GET", "HEAD")


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            yield value[7:].strip()
