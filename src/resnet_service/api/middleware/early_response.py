"""Pure ASGI: answers that come before their request has ended, such that the client can read them."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What is read and thrown away after an early answer: as long as a client of normal speed takes to notice it.
_DRAIN_SECONDS = 5.0


class EarlyResponseMiddleware:
    """Read on, for a bounded while, where the answer is given before the body has been read.

    Closing a connection with unread bytes resets it, and a reset destroys the answer on its way to the client. So the
    whole answer is sent at once, but its end is told to the server only when the rest of the body has come, or
    ``max_bytes`` of it, or the time is up. A client that has not begun to send, because it waits for ``100 Continue``,
    and one that promises more than would be read are told that the connection closes instead.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI has it."""
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        promised = headers.get(b"content-length", b"0")
        if promised == b"0" and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        waits = headers.get(b"expect", b"").lower() == b"100-continue"
        unread = True
        drain = True

        async def watching_receive() -> Message:
            nonlocal unread, waits
            waits = False
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def complete_send(message: Message) -> None:
            nonlocal drain
            if not unread:
                await send(message)
            elif message["type"] == "http.response.start":
                too_much = promised.isdigit() and int(promised) > self._max_bytes
                if waits or too_much or message["status"] == 408:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
                # Of a body that comes too slowly, nothing more is waited for.
                drain = not waits and message["status"] != 408
                await send(message)
            elif drain and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await self._drain(receive)
                await send({"type": "http.response.body"})
            else:
                await send(message)

        await self._app(scope, watching_receive, complete_send)

    async def _drain(self, receive: Receive) -> None:
        left = self._max_bytes
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):  # the end, or the client has left
                        return
        except TimeoutError:
            pass
