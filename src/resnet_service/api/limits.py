"""Pure ASGI: what a request may cost before anyone looks at it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.problems import respond_to
from resnet_service.errors import BodyTooLarge


class BodyLimit:
    """Refuse bodies of more than ``max_bytes``.

    A ``Content-Length`` beyond the limit is refused before anything is read; what is read is counted all the same,
    because a client may promise less than it sends, or with chunked encoding nothing at all.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        promised = dict(scope["headers"]).get(b"content-length", b"")
        if promised.isdigit() and int(promised) > self._max_bytes:
            await respond_to(self._refusal(int(promised)))(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._refusal(received)
            return message

        await self._app(scope, counting_receive, send)

    def _refusal(self, size: int) -> BodyTooLarge:
        return BodyTooLarge(
            f"The request body has {_megabytes(size)} or more; the limit is {_megabytes(self._max_bytes)}."
        )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"
