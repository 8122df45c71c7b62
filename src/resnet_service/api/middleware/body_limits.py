"""Limits of request bodies: size, time, rate, and the memory of all bodies together."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.problem_details import respond_to
from resnet_service.api.units import megabytes
from resnet_service.errors import BodyBudgetExceeded, BodyTooLarge, RequestTooSlow, ServiceError
from resnet_service.system.budget import SharedBudget
from resnet_service.system.memory import trim_freed

# Seconds before the minimum rate applies: a slow start or a short gap in reception is no attack.
_GRACE = 5.0
# One second is enough: every response releases bytes, and there are many responses a second.
_RETRY_SECONDS = 1
# Bodies that took less memory than this together leave little behind.
_TRIM_BYTES = 16 << 20


class BodyBudget:
    """The memory budget of all request bodies, in bytes, from their arrival to the response.

    Bytes count when they arrive, not when they are announced, since an announcement costs its sender nothing.

    Args:
        limit: The bytes in all.
        shared: The budget of all processes of the service, instead of ``limit``.

    """

    def __init__(self, limit: int, shared: SharedBudget | None = None) -> None:
        self.limit = limit if shared is None else shared.limit
        self._shared = shared
        self.used = 0  # by this process
        self._peak = 0  # since the budget was unused

    def check(self, size: int) -> None:
        """Check whether ``size`` bytes more are within the budget; do not acquire them.

        Raises:
            BodyBudgetExceeded: They are not.

        """
        used = self.used if self._shared is None else self._shared.used
        if used + size > self.limit:
            raise self._exceeded()

    def acquire(self, size: int) -> None:
        """Count ``size`` bytes more.

        Raises:
            BodyBudgetExceeded: They exceed the budget, and are not counted.

        """
        if self._shared is None:
            self.check(size)
        elif not self._shared.try_acquire(size):
            raise self._exceeded()
        self.used += size
        self._peak = max(self._peak, self.used)

    def release(self, size: int) -> None:
        """Count ``size`` bytes less; after a burst of large bodies, return their memory to the operating system.

        Bodies arrive in pieces. One small block that is allocated among them would otherwise keep all of them resident.
        """
        if self._shared is not None and size:
            self._shared.release(size)
        self.used -= size
        if self.used == 0:
            if self._peak >= _TRIM_BYTES:
                trim_freed()
            self._peak = 0

    @staticmethod
    def _exceeded() -> BodyBudgetExceeded:
        return BodyBudgetExceeded(
            f"The memory budget for request bodies is used up. Try again in {_RETRY_SECONDS} s.",
            retry_after=_RETRY_SECONDS,
        )


class BodyLimitsMiddleware:
    """Refuse bodies that are too large or too slow, or that exceed the budget of all bodies.

    A ``Content-Length`` beyond the limit is refused before anything is read. Received bytes are counted in any case: a
    client may send more than it announces, or use chunked encoding and announce nothing. A body whose announced
    size does not fit into the budget is refused before it is read. A body is refused while it is being read if other
    bodies use up the budget.

    Args:
        app: The application to call.
        max_bytes: The largest body.
        budget: The memory of this body and all others.
        seconds: The longest time from the first read to the end of the body.
        min_rate: The lowest average rate, in bytes a second from the first read; 0 means no limit.
        max_bytes_by_path: The largest body of the paths that have another limit.

    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        budget: BodyBudget,
        seconds: float = 60,
        min_rate: int = 0,
        max_bytes_by_path: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._budget = budget
        self._max_bytes_by_path = max_bytes_by_path or {}
        self._seconds = seconds
        self._min_rate = min_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        announced = int(length) if length.isdigit() else 0
        max_bytes = self._max_bytes_by_path.get(scope["path"], self._max_bytes)
        try:
            if announced > max_bytes:
                raise _refusal(announced, max_bytes)
            if announced:
                self._budget.check(announced)
        except ServiceError as error:
            await respond_to(error, scope["path"])(scope, receive, send)
            return
        received = held = 0
        begun: float | None = None
        complete = False

        async def bounded_receive() -> Message:
            nonlocal received, held, begun, complete
            if complete:  # the next message is the client's disconnect, which has no time limit
                return await receive()
            now = asyncio.get_running_loop().time()
            begun = now if begun is None else begun
            try:
                async with asyncio.timeout_at(begun + self._allowance(received)):
                    message = await receive()
            except TimeoutError:
                raise RequestTooSlow(
                    f"The request body arrived too slowly: {received} bytes in {now - begun:.0f} s or more."
                ) from None
            size = len(message.get("body", b""))
            received += size
            if received > max_bytes:
                raise _refusal(received, max_bytes)
            self._budget.acquire(size)
            held += size
            complete = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, bounded_receive, send)
        finally:
            self._budget.release(held)

    def _allowance(self, received: int) -> float:
        """Return the seconds within which more than ``received`` bytes must arrive."""
        if self._min_rate == 0:
            return self._seconds
        return min(self._seconds, _GRACE + received / self._min_rate)


def _refusal(size: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body has at least {megabytes(size)}; the limit is {megabytes(limit)}.")
