"""The route of a request that was answered before routing, for metrics and log."""

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope


class RouteTemplates:
    """The path templates of an application's routes.

    Middleware answers some requests before they are routed: 401, 413 and 429. Only those are looked up here, after
    their answer, so that routed requests do not pay for a second match.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]

    def of(self, scope: Scope) -> str | None:
        """Return the template of the route with this request's path and method, or else its path alone, if any."""
        same_path: str | None = None
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route.path
            if match is Match.PARTIAL and same_path is None:
                same_path = route.path
        return same_path
