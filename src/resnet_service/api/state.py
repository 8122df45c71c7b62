"""What requests share: made by the lifespan hook, reached through typed dependencies."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

from fastapi import Depends, Request

from resnet_service.classifier import ImageClassifier
from resnet_service.errors import NotReady
from resnet_service.executor import InferenceExecutor
from resnet_service.settings import Settings


@dataclass
class Service:
    """The loaded classifier, the threads it runs in, and whether requests may come."""

    settings: Settings
    classifier: ImageClassifier
    executor: InferenceExecutor
    ready: bool = False


class LifespanState(TypedDict):
    """What the lifespan hook yields."""

    service: Service


async def _ready_service(request: Request) -> Service:
    # A coroutine without an await: FastAPI sends plain functions through a thread pool, which costs more than the rest
    # of the HTTP layer.
    service: Service | None = getattr(request.state, "service", None)
    if service is None or not service.ready:
        raise NotReady("The service is not ready: it is starting or shutting down. Try again in a moment.")
    return service


ReadyService = Annotated[Service, Depends(_ready_service)]
