"""Inference routes without the rest of the framework between them and the middleware."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectRoute(NamedTuple):
    """A route, and its handler, which returns or raises as a handler of FastAPI's does."""

    route: APIRoute
    handle: Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoutesMiddleware:
    """Call the handler of a route whose method and path are those of the request; pass on all other requests.

    FastAPI matches a request against one route after another, and the route that it finds twice, in a stack of contexts
    for generators and files that inference routes do not use. Errors are answered by the application's own handlers.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[tuple[str, str], DirectRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        direct = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if direct is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["endpoint"] = direct.route, direct.route.endpoint
        request = Request(scope, receive, send)
        try:
            response = await direct.handle(request)
        except Exception as error:
            handlers = scope["app"].exception_handlers
            # What only the handler of Exception would take is for the outermost middleware.
            kind = next((kind for kind in type(error).__mro__ if kind in handlers), Exception)
            if kind is Exception:
                raise
            response = await handlers[kind](request, error)
        await response(scope, receive, send)
