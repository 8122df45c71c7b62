"""The application on Ray Serve: ``serve run resnet_service.ray.serving:app``.

Each replica runs the whole of ``create_app``, with the routes, schemas, errors and limits of ``resnet-service serve``.
The settings come from the same variables (``RESNET_SERVICE_…``), read where ``serve run`` is called. The model must
have the same path on every node. Connections (number, headers, idle time) are up to Ray's proxy.

Each replica has its own compiled network. Ray's object store cannot share it among a node's replicas, since OpenVINO
copies the weights into memory of its own; they share only the model file in the page cache. To share the compiled
network too, run one replica a node that takes all of its CPUs (``RESNET_SERVICE_WORKERS``).
"""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.app import create_app
from resnet_service.api.response_headers import RESPONSE_HEADERS
from resnet_service.observability.request_context import REQUEST_ID_HEADER
from resnet_service.settings import Settings, load_settings
from resnet_service.system.memory import limit_gc, limit_heap

_RETRY_SECONDS = 1
_RESPONSE_HEADERS = [(name.lower().encode(), value.encode()) for name, value in RESPONSE_HEADERS]


class AsServed:
    """ASGI middleware for the work that this package's server does for the application and Ray Serve does not.

    It passes the lifespan's state on to each request, as ASGI requires of servers; Ray Serve drops that state. It adds
    the headers that every response has, and removes the request ID, which Ray's proxy adds itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or the lifespan."""
        if scope["type"] == "lifespan":
            self._state = scope.setdefault("state", self._state)
            await self._app(scope, receive, send)
            return

        async def send_as_served(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message.get("headers", ()) if header[0].lower() != REQUEST_ID_HEADER]
                message = {**message, "headers": [*kept, *_RESPONSE_HEADERS]}
            await send(message)

        await self._app({**scope, "state": {**scope.get("state", {}), **self._state}}, receive, send_as_served)


def build(settings: Settings | None = None, *, max_replicas: int = 100, cpus: float | None = None) -> serve.Application:
    """Return the application for ``serve.run``.

    Ray Serve scales the replicas so that each has about one running and one waiting request for each worker. If a
    replica's queue is full, its own admission answers 429. For that, Ray passes a replica up to twice as many requests
    as it has slots. If no replica accepts more requests (while one starts, for example), Ray's proxy queues as many as
    one replica has slots, and answers further ones with 429 itself, in plain text.

    Args:
        settings: Settings of each replica, by default from the environment. ``workers`` 0 means 1: of a node's CPUs, a
            replica may use only those that Ray reserved for it.
        max_replicas: Upper limit of autoscaling.
        cpus: CPUs that Ray reserves for a replica; by default one a worker.

    """
    base = settings or load_settings()
    workers = base.workers or 1
    chosen = base.model_copy(update={"workers": workers})
    slots = workers * (1 + chosen.queue)

    def application() -> ASGIApp:
        limit_heap()
        limit_gc()
        return AsServed(create_app(chosen))

    deployment = serve.deployment(
        name="resnet-service",
        max_ongoing_requests=2 * slots,
        max_queued_requests=slots,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=_RETRY_SECONDS),
        autoscaling_config=AutoscalingConfig(
            min_replicas=1, max_replicas=max_replicas, target_ongoing_requests=2 * workers
        ),
        ray_actor_options={"num_cpus": workers if cpus is None else cpus},
    )(serve.ingress(application)())
    return deployment.bind()


app = build()
