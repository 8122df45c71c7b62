"""Pure ASGI: what receiving a body may cost, in bytes and in time."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.problem_details import respond_to
from resnet_service.errors import BodyBudgetExceeded, BodyTooLarge, RequestTooSlow, ServiceError

# Seconds before the rate counts: a slow start, or a moment without reception, is no attack.
_GRACE = 5.0
# Each answer gives bytes back, and there are many a second. Only slow bodies keep theirs for longer.
_RETRY_SECONDS = 1


class BodyBudget:
    """The bytes of all bodies that are in memory at once, from their arrival to the answer; ``most`` of them.

    What is counted is what has come, not what was promised: a promise costs its sender nothing.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = 0

    def expect(self, size: int) -> None:
        """See whether a body of ``size`` bytes fits beside what is held; hold nothing for it.

        Raises:
            BodyBudgetExceeded: It does not.

        """
        if self.now + size > self.most:
            raise BodyBudgetExceeded(
                f"The service holds as many bytes of images as it may. Try again in {_RETRY_SECONDS} s.",
                retry_after=_RETRY_SECONDS,
            )

    def acquire(self, size: int) -> None:
        """Hold ``size`` bytes more.

        Raises:
            BodyBudgetExceeded: They do not fit; they are not held.

        """
        self.expect(size)
        self.now += size

    def release(self, size: int) -> None:
        """Hold ``size`` bytes less."""
        self.now -= size


class BodyLimitsMiddleware:
    """Refuse bodies of more than ``max_bytes``, and those that take more than ``seconds`` or come below ``min_rate``.

    A ``Content-Length`` beyond the limit is refused before anything is read; what is read is counted all the same,
    because a client may promise less than it sends, or with chunked encoding nothing at all. ``min_rate`` is in bytes
    a second, on average from the first moment that the application waits for the body. ``held`` counts the bytes of
    this body together with those of all others; where there is no room for it, it is refused before it is read, and
    where others took the room meanwhile, while it is. ``by_path`` has the paths whose bodies have another limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        held: BodyBudget,
        seconds: float = 60,
        min_rate: int = 0,
        by_path: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held = held
        self._by_path = by_path or {}
        self._seconds = seconds
        self._min_rate = min_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        promised = int(length) if length.isdigit() else 0
        max_bytes = self._by_path.get(scope["path"], self._max_bytes)
        try:
            if promised > max_bytes:
                raise _refusal(promised, max_bytes)
            if promised:
                self._held.expect(promised)
        except ServiceError as error:
            await respond_to(error, scope["path"])(scope, receive, send)
            return
        received = held = 0
        begun: float | None = None
        complete = False

        async def bounded_receive() -> Message:
            nonlocal received, held, begun, complete
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
            size = len(message.get("body", b""))
            received += size
            if received > max_bytes:
                raise _refusal(received, max_bytes)
            self._held.acquire(size)
            held += size
            complete = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, bounded_receive, send)
        finally:
            self._held.release(held)

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
