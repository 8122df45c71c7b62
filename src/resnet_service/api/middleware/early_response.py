"""Responses that are sent before the request's body has been read, so that the client can still read them."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The time in which a client of normal speed notices an early response; until then, its body is read and discarded.
_DRAIN_SECONDS = 5.0


class EarlyResponseMiddleware:
    """After an early response, read and discard the rest of the body, within bounds.

    Closing a connection that has unread bytes resets it, and a reset can destroy the response on its way to the client.
    So the whole response is sent at once, but the server is told that it is complete only after the rest of the body,
    or ``drain_bytes`` of it, has arrived, or after a time limit. A client that waits for ``100 Continue``, announces
    more than ``max_bytes`` or sends too slowly is told that the connection closes; only the larger body is read for a
    while.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, drain_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._drain_bytes = drain_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        announced = headers.get(b"content-length", b"0")
        if announced == b"0" and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        awaits_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        unread = True
        drain = True

        async def watching_receive() -> Message:
            nonlocal unread, awaits_continue
            awaits_continue = False
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def complete_send(message: Message) -> None:
            nonlocal drain
            if not unread:
                await send(message)
            elif message["type"] == "http.response.start":
                too_large = announced.isdigit() and int(announced) > self._max_bytes
                if awaits_continue or too_large or message["status"] == 408:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
                # Do not wait for the rest of a body that arrives too slowly.
                drain = not awaits_continue and message["status"] != 408
                await send(message)
            elif drain and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await self._drain(receive)
                await send({"type": "http.response.body"})
            else:
                await send(message)

        await self._app(scope, watching_receive, complete_send)

    async def _drain(self, receive: Receive) -> None:
        remaining = self._drain_bytes
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while remaining > 0:
                    message = await receive()
                    remaining -= len(message.get("body", b""))
                    if not message.get("more_body", False):  # the body has ended, or the client has left
                        return
        except TimeoutError:
            pass
