"""Pure ASGI: no answer without an API key, where keys are configured."""

from collections.abc import Collection, Iterable, Iterator

from starlette.types import ASGIApp, Receive, Scope, Send

from resnet_service.api.problem_details import respond_to
from resnet_service.api_keys import KeyRing
from resnet_service.errors import Unauthorized


class APIKeyMiddleware:
    """Answer 401 before anything else is done for a request without a valid key: no route, no place, no body.

    ``open_paths`` need none to be read. Whatever is not among them does, paths that do not exist included: so a route
    that is added later is closed until somebody opens it, and strangers cannot tell which there are.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing, open_paths: Collection[str]) -> None:
        self._app = app
        self._ring = ring
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        # Clients may carry another party's credentials beside ours, so one valid key is enough.
        presented = list(_presented(scope["headers"]))
        if any(self._ring.keys.accept(key) for key in presented):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            wrong = "The API key is not valid. " if presented else "This needs an API key. "
            error = Unauthorized(f"{wrong}Send one as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.")
            await respond_to(error, scope["path"])(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        # What is open is there to be read: the page is at the very path that Hugging Face's client posts images to.
        return scope["path"] in self._open and scope.get("method") in ("GET", "HEAD")


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            yield value[7:].strip()
