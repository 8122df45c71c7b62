"""The path prefix under which a proxy publishes the service, for proxies that leave it in the path."""

import re

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from resnet_service.api.client_address import ClientAddresses

_HEADER = b"x-forwarded-prefix"
_MAX_LENGTH = 200
# Segments of unreserved characters (RFC 3986, section 2.3), but for those that mean a folder.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")


class PathPrefixMiddleware:
    """Remove the prefix that a trusted proxy names in ``X-Forwarded-Prefix`` from the paths that begin with it.

    Most proxies remove the prefix themselves, and nothing is left to do, whether they name it or not: the service
    writes relative links only. Where the path is the prefix without a slash at its end, such links would lead beside
    the prefix, so that a browser is redirected; other clients post there.
    """

    def __init__(self, app: ASGIApp, clients: ClientAddresses) -> None:
        self._app = app
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        prefix = self._prefix(scope) if scope["type"] == "http" else None
        if prefix is None or not f"{scope['path']}/".startswith(f"{prefix}/"):
            await self._app(scope, receive, send)
            return
        inner = scope["path"][len(prefix) :]
        # In place, since log and metrics read the path of the same scope.
        scope["path"] = inner or "/"
        if not inner and scope["method"] in ("GET", "HEAD"):
            # Relative, since another proxy in front may add a prefix of its own.
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            await RedirectResponse(f"{prefix.rpartition('/')[2]}/{query}")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _prefix(self, scope: Scope) -> str | None:
        values = [value for name, value in scope["headers"] if name == _HEADER]
        # Of several, a client may have written the first.
        if len(values) != 1 or not self._clients.is_trusted((scope.get("client") or (None,))[0]):
            return None
        prefix: str = values[0].decode("latin-1").removesuffix("/")
        return prefix if len(prefix) <= _MAX_LENGTH and _PREFIX.fullmatch(prefix) else None
