"""The same application on Ray Serve: ``serve run resnet_service.ray.serving:app``.

Each replica is the whole of ``create_app``: routes, schemas, problems and limits are those of ``resnet-service serve``.
The settings come from the same variables (``RESNET_SERVICE_…``), as they are where ``serve run`` is called. The model
lies on every node under the same path. What concerns connections (their number, headers, idle time) is Ray's proxy's.

A replica has its own compiled network. It cannot lie in Ray's object store for all of a node's replicas: OpenVINO
rearranges the weights for the CPU into memory of its own. What replicas of a node share is the model file, in the page
cache. One replica a node that takes all of its CPUs (``RESNET_SERVICE_WORKERS``) shares the compiled network among
them, too.
"""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.app import create_app
from resnet_service.server.server import EVERY_ANSWER
from resnet_service.settings import Settings, load_settings
from resnet_service.system.memory import limit_gc, limit_heap

_RETRY_SECONDS = 1
_EVERY_ANSWER = [(name.lower().encode(), value.encode()) for name, value in EVERY_ANSWER]
_REQUEST_ID = b"x-request-id"


class AsServed:
    """Pure ASGI: what our own server does for the application, and Ray's does not.

    Each request gets what the lifespan hook has yielded: servers do that, says the ASGI specification, but Ray Serve
    lets the hook fill the dictionary and then forgets it. Each answer gets the headers that all answers have, and loses
    its request ID, since Ray's proxy writes the same one beside it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            self._state = scope.setdefault("state", self._state)
            await self._app(scope, receive, send)
            return

        async def send_as_served(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message.get("headers", ()) if header[0].lower() != _REQUEST_ID]
                message = {**message, "headers": [*kept, *_EVERY_ANSWER]}
            await send(message)

        await self._app({**scope, "state": {**scope.get("state", {}), **self._state}}, receive, send_as_served)


def build(settings: Settings | None = None, *, max_replicas: int = 100, cpus: float | None = None) -> serve.Application:
    """Return the application for ``serve.run``.

    Serve starts and ends replicas such that each has about one request in work and one waiting for each worker. Who
    finds no place is answered 429 by the replica's own admission, as everywhere. Ray hands a replica twice as many
    requests as it has places, so that it comes to that; only where no replica takes any more, while one starts for
    example, does Ray's proxy hold as many as one replica has places, and answer the others 429 itself, in plain text.

    Args:
        settings: Of each replica; by default, read from the environment. ``workers`` is 1 where it is 0: of a node with
            64 CPUs a replica has only those that Ray gave it.
        max_replicas: Where autoscaling ends.
        cpus: What Ray reserves for a replica; by default one a worker.

    """
    given = settings or load_settings()
    workers = given.workers or 1
    chosen = given.model_copy(update={"workers": workers})
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
