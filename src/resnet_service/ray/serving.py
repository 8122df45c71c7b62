"""The same application on Ray Serve: ``serve run resnet_service.ray.serving:app``.

Each replica is the whole of ``create_app``: routes, schemas, problems and limits are those of ``resnet-service serve``,
and the settings come from the same variables (``RESNET_SERVICE_…``), which must be the same on every node.

A replica has its own compiled network. It cannot lie in Ray's object store for all of a node's replicas: OpenVINO
rearranges the weights for the CPU into memory of its own. What replicas of a node share is the model file, in the page
cache. One replica a node that takes all of its CPUs (``RESNET_SERVICE_WORKERS``) shares the compiled network among
them, too.
"""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from resnet_service.api.app import create_app
from resnet_service.settings import Settings, load_settings

_RETRY_SECONDS = 1


class LifespanState:
    """Pure ASGI: hands to each request what the lifespan hook has yielded.

    Servers do that, says the ASGI specification; Ray Serve lets the hook fill the dictionary and then forgets it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            self._state = scope.setdefault("state", self._state)
        else:
            scope["state"] = {**self._state, **scope.get("state", {})}
        await self._app(scope, receive, send)


def _application() -> ASGIApp:
    """Make a replica's application; called on its node."""
    return LifespanState(create_app())


def build(settings: Settings | None = None, *, max_replicas: int = 100, cpus: float | None = None) -> serve.Application:
    """Return the application for ``serve.run``.

    Serve keeps as many replicas as have about one request in work and one waiting for each worker. A replica takes as
    many requests as it has workers and places in the queue, and the proxy holds as many again while replicas start;
    whatever is beyond is answered 429, by the proxy or by the replica's own admission.

    Args:
        settings: Tell how many workers and places a replica has; by default, read from the environment.
        max_replicas: Where autoscaling ends.
        cpus: Of each replica; by default one a worker.

    """
    chosen = settings or load_settings()
    workers = chosen.workers or 1
    places = workers * (1 + chosen.queue)
    deployment = serve.deployment(
        name="resnet-service",
        max_ongoing_requests=places,
        max_queued_requests=places,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=_RETRY_SECONDS),
        autoscaling_config=AutoscalingConfig(
            min_replicas=1, max_replicas=max_replicas, target_ongoing_requests=2 * workers
        ),
        ray_actor_options={
            "num_cpus": workers if cpus is None else cpus,
            # A replica on a node of 64 CPUs would take itself for the owner of all.
            "runtime_env": {"env_vars": {"RESNET_SERVICE_WORKERS": str(workers)}},
        },
    )(serve.ingress(_application)())
    return deployment.bind()


app = build()
