"""The middleware of the application, in order."""

from collections.abc import Collection, Mapping

from starlette.middleware import Middleware

from resnet_service.api.client_address import ClientAddresses
from resnet_service.api.middleware.api_key import APIKeyMiddleware
from resnet_service.api.middleware.body_limits import BodyBudget, BodyLimitsMiddleware
from resnet_service.api.middleware.cors import cors
from resnet_service.api.middleware.direct_routes import DirectRoute, DirectRoutesMiddleware
from resnet_service.api.middleware.early_response import EarlyResponseMiddleware
from resnet_service.api.middleware.head import HeadMiddleware
from resnet_service.api.middleware.path_prefix import PathPrefixMiddleware
from resnet_service.api.middleware.request_context import RequestContextMiddleware
from resnet_service.api_keys import KeyRing
from resnet_service.observability.metrics import Metrics
from resnet_service.observability.tracing import Tracer
from resnet_service.settings import Settings


def middleware(
    settings: Settings,
    *,
    body_budget: BodyBudget,
    max_bytes_by_path: Mapping[str, int],
    key_ring: KeyRing | None,
    open_paths: Collection[str],
    metrics: Metrics,
    tracer: Tracer | None,
    direct_routes: Mapping[tuple[str, str], DirectRoute],
) -> list[Middleware]:
    """Return the middleware; the first one sees a request first.

    Args:
        settings: The limits, the allowed origins and the trusted proxies.
        body_budget: The bytes that all bodies in memory may have together.
        max_bytes_by_path: The largest body of the paths that have another limit.
        key_ring: The accepted API keys, where keys are needed.
        open_paths: The paths that can be read without a key.
        metrics: Count and time each request.
        tracer: Records each request, where tracing is on.
        direct_routes: The routes, by method and path, that are called without FastAPI's own routing.

    """
    clients = ClientAddresses(settings.trusted_proxies)
    stack = [Middleware(RequestContextMiddleware, metrics=metrics, tracer=tracer, clients=clients)]
    if settings.trusted_proxies:
        # Before all that asks for the path.
        stack.append(Middleware(PathPrefixMiddleware, clients=clients))
    if settings.cors_origins:
        # Before the keys: a browser asks without a key whether it may send one.
        stack.append(cors(settings.cors_origins))
    # A proxy that lets the largest body of all routes through answers 502 where another route stops reading it.
    largest = max(settings.max_body_bytes, *max_bytes_by_path.values())
    stack.append(Middleware(EarlyResponseMiddleware, max_bytes=settings.max_body_bytes, drain_bytes=largest))
    if key_ring is not None:
        stack.append(Middleware(APIKeyMiddleware, ring=key_ring, open_paths=open_paths))
    limits = Middleware(
        BodyLimitsMiddleware,
        max_bytes=settings.max_body_bytes,
        budget=body_budget,
        seconds=settings.body_seconds,
        min_rate=settings.min_body_rate,
        max_bytes_by_path=max_bytes_by_path,
    )
    # No direct route is asked with HEAD.
    return [*stack, limits, Middleware(DirectRoutesMiddleware, routes=direct_routes), Middleware(HeadMiddleware)]
