"""FastAPI behind middleware that sees each request first."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send


class Application(FastAPI):
    """FastAPI behind ``outer`` middleware, the first of which sees a request first.

    FastAPI calls middleware of its own before any that it is given: for tracing, for limits of bodies and for errors.
    Most requests are answered by the outer middleware, and need none of it.
    """

    def __init__(self, *, outer: Sequence[Middleware], **options: Any) -> None:
        super().__init__(**options)
        self.entry: ASGIApp = super().__call__
        for cls, arguments, named in reversed(outer):
            self.entry = cls(self.entry, *arguments, **named)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        scope["app"] = self
        await self.entry(scope, receive, send)
