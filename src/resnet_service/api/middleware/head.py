"""``HEAD``: answered like ``GET``, without the body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Answer ``HEAD`` wherever there is ``GET``, with the same header fields (RFC 9110, section 9.3.2).

    The application sees ``GET``; metrics and log, and the server, which leaves out the body, see ``HEAD``. FastAPI
    would describe a route with both methods as two operations of the same name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_for_head(message: Message) -> None:
            scope["method"] = "HEAD"
            await send(message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_for_head)
        finally:
            scope["method"] = "HEAD"
