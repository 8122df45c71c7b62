"""The CPU time of an application's event loop in this process, without that of other threads."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from resnet_service.api.application import Application
from tests.support.servers import served


class LoopMeter:
    """ASGI middleware that measures the CPU time of the event loop's thread."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._clock = 0
        self._longest = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._turning = asyncio.create_task(self._turn())
        await self._app(scope, receive, send)

    @property
    def seconds(self) -> float:
        return time.clock_gettime(self._clock)

    def longest_turn(self) -> float:
        """Return the longest turn of the loop since the last call, in CPU seconds."""
        longest, self._longest = self._longest, 0
        return longest

    async def _turn(self) -> None:
        while True:
            begun = self.seconds
            await asyncio.sleep(0.001)
            self._longest = max(self._longest, self.seconds - begun)


@contextmanager
def served_and_metered(app: Application) -> Iterator[tuple[httpx.Client, LoopMeter]]:
    """Serve ``app`` as ``served`` does; yield a client for it, and the meter of its loop."""
    app.entry = meter = LoopMeter(app.entry)
    with served(app) as client:
        yield client, meter
