"""The cost of metrics and logging for each request: ``python -m benchmarks.observing``.

The same requests go through an application that does nothing, with and without the middleware; the log goes to
``/dev/null``. Without sockets and inference threads, the difference is the middleware's time on the event loop.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.middleware.request_context import RequestContextMiddleware
from resnet_service.observability.logs import formatter, writing
from resnet_service.observability.metrics import STAGES, Metrics
from resnet_service.observability.request_context import current

_TIMES = 10_000
_ROUNDS = 5


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def _scope() -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "headers": [(b"host", b"localhost"), (b"content-type", b"image/jpeg"), (b"user-agent", b"benchmark")],
    }


class _Route:
    path = "/predict"


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = _Route
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def _requests(app: ASGIApp) -> None:
    for _ in range(_TIMES):
        await app(_scope(), _receive, _send)


def _microseconds(work: Callable[[], Awaitable[None]]) -> float:
    """Return the best of ``_ROUNDS``, in microseconds for one of ``_TIMES``."""

    async def once() -> float:
        begun = time.perf_counter()
        await work()
        return time.perf_counter() - begun

    return 1e6 / _TIMES * min(asyncio.run(once()) for _ in range(_ROUNDS))


def main() -> None:
    """Measure and print."""
    metrics = Metrics()
    observed = RequestContextMiddleware(_answer, metrics)

    async def stages() -> None:
        for _ in range(_TIMES):
            for stage in STAGES:
                metrics.stage(stage, 0.004)

    async def lines() -> None:
        record = logging.LogRecord("resnet_service.access", logging.INFO, "", 0, "request", (), None)
        record.__dict__ |= {"method": "POST", "route": "/predict", "status": 200, "ms": 5.1, "received": 1, "sent": 2}
        for _ in range(_TIMES):
            as_json.format(record)

    as_json = formatter("json")
    bare = _microseconds(lambda: _requests(_answer))
    sink = os.open(os.devnull, os.O_WRONLY)
    with writing("json", "warning", sink):
        quiet = _microseconds(lambda: _requests(observed)) - bare
    with writing("json", "info", sink):
        logged = _microseconds(lambda: _requests(observed)) - bare
    current.set(None)
    begun = time.perf_counter()
    figures, _ = metrics.exposition("")
    scrape = time.perf_counter() - begun
    print(f"a request: counters, durations, request ID             {quiet:6.1f} us")
    print(f"  its five stages                                      {_microseconds(stages):6.1f} us")
    print(f"  its line in the log, as JSON                         {logged - quiet:6.1f} us")
    print(f"    of which formatting                                {_microseconds(lines):6.1f} us")
    print(f"GET /metrics ({len(figures)} bytes)                          {1e6 * scrape:6.0f} us")


if __name__ == "__main__":
    main()
