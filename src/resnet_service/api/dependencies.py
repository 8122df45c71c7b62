"""The state that requests share: the lifespan hook creates it, typed dependencies give access to it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, TypedDict

from fastapi import Depends, Request

from resnet_service.api.health import Health
from resnet_service.api.reload import Reloader
from resnet_service.api_keys import KeyRing
from resnet_service.errors import NotReady
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.executor import InferenceExecutor
from resnet_service.observability.exposition import Exposition
from resnet_service.observability.metrics import Metrics
from resnet_service.settings import Settings
from resnet_service.system.shared_state import SharedState


@dataclass
class Service:
    """The loaded classifier, the threads it runs in, and its health.

    A reload can replace ``classifier`` at any await: read it once in each request. ``serving_since`` is the time at
    which it began to serve, in UTC.
    """

    settings: Settings
    classifier: ImageClassifier
    executor: InferenceExecutor
    reloader: Reloader
    keys: KeyRing | None = None
    metrics: Metrics = field(default_factory=Metrics)
    shared: SharedState = field(default_factory=SharedState.local)
    exposition: Exposition = field(init=False)
    health: Health = field(init=False)
    serving_since: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.serving_since = _now()
        self.exposition = Exposition(self.metrics)
        self.health = Health(
            lambda: self.executor.run(self.classifier.warm_up),
            lambda: self.executor.longest_seconds,
            # By then, the request has been answered 504 for as long as it was allowed to take.
            limit=2 * self.settings.deadline,
        )

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests to the service; this also tells the other processes."""
        self.shared.tell(ready=self.health.ready)
        return self.shared.ready and not self.health.draining

    def check_ready(self) -> None:
        """Do nothing if requests may be sent.

        Raises:
            NotReady: The service is shutting down, a thread is stuck, or an inference failed and the model is being
                checked; or, of several processes, not all have started, or more than one is not ready.

        """
        if not self.ready:
            self.health.check_ready()  # which knows what is wrong here
            raise NotReady

    def reload(self) -> None:
        """Reload the API keys now, and the model in the background."""
        self.reload_keys()
        self.reloader.request()

    def reload_keys(self) -> None:
        """Read the API keys again, if there are any."""
        if self.keys is not None:
            self.metrics.reloaded("api_keys", self.keys.reload())

    def serve(self, classifier: ImageClassifier) -> None:
        """Serve ``classifier`` from now on."""
        self.classifier = classifier
        self.serving_since = _now()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


class LifespanState(TypedDict):
    """The state that the lifespan hook yields."""

    service: Service


def started_service(request: Request) -> Service:
    """Return the service. It need not be ready: accepted requests are answered in any case.

    Raises:
        NotReady: The service is starting.

    """
    service: Service | None = getattr(request.state, "service", None)
    if service is None:
        raise NotReady("The service is starting. Try again in a moment.")
    return service


async def _started_service(request: Request) -> Service:
    # A coroutine, so that FastAPI does not run it in a thread, which costs more than the rest of the HTTP layer.
    return started_service(request)


StartedService = Annotated[Service, Depends(_started_service)]
