"""Pure ASGI: what receiving a body may cost, in bytes and in time."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.problems import respond_to
from resnet_service.errors import BodyTooLarge, RequestTooSlow

# Seconds before the rate counts: a slow start, or a moment without reception, is no attack.
_GRACE = 5.0


class BodyLimit:
    """Refuse bodies of more than ``max_bytes``, and those that take more than ``seconds`` or come below ``min_rate``.

    A ``Content-Length`` beyond the limit is refused before anything is read; what is read is counted all the same,
    because a client may promise less than it sends, or with chunked encoding nothing at all. ``min_rate`` is in bytes
    a second, on average from the first moment that the application waits for the body. ``by_path`` has the paths whose
    bodies have another limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        seconds: float = 60,
        min_rate: int = 0,
        by_path: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._by_path = by_path or {}
        self._seconds = seconds
        self._min_rate = min_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        promised = dict(scope["headers"]).get(b"content-length", b"")
        max_bytes = self._by_path.get(scope["path"], self._max_bytes)
        if promised.isdigit() and int(promised) > max_bytes:
            await respond_to(_refusal(int(promised), max_bytes))(scope, receive, send)
            return
        received = 0
        begun: float | None = None
        complete = False

        async def bounded_receive() -> Message:
            nonlocal received, begun, complete
            if complete:  # what is still to come is the client's leaving, which may take as long as it likes
                return await receive()
            now = asyncio.get_running_loop().time()
            begun = now if begun is None else begun
            try:
                async with asyncio.timeout_at(begun + self._allowance(received)):
                    message = await receive()
            except TimeoutError:
                raise RequestTooSlow(
                    f"The request body came too slowly: {received} bytes in {now - begun:.0f} s or more."
                ) from None
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise _refusal(received, max_bytes)
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, bounded_receive, send)

    def _allowance(self, received: int) -> float:
        """Return the seconds in which more than ``received`` bytes must have come."""
        if self._min_rate == 0:
            return self._seconds
        return min(self._seconds, _GRACE + received / self._min_rate)


def _refusal(size: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body has {megabytes(size)} or more; the limit is {megabytes(limit)}.")


def megabytes(size: int) -> str:
    """Say a number of bytes to people."""
    return f"{size / 2**20:.1f} MB"
