"""A server whose answers wait for a gate."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from resnet_service.api.app import create_app
from resnet_service.inference.executor import InferenceExecutor
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import served
from tests.support.waiting import until

IMAGE = encoded(noise(40, 30), "JPEG")


class Gated(NamedTuple):
    """A server whose answers wait for a gate, and clients in threads."""

    client: httpx.Client
    classifier: FakeClassifier
    gate: threading.Event
    clients: ThreadPoolExecutor
    executor: InferenceExecutor

    def ask(self) -> "Future[httpx.Response]":
        return self.clients.submit(self.client.post, "/predict", content=IMAGE)

    def fill(self, slots: int) -> "list[Future[httpx.Response]]":
        """Occupy all slots, and return when they are occupied."""
        asked = [self.ask() for _ in range(slots)]
        until(lambda: self.executor.running + self.executor.waiting == slots)
        return asked


@contextmanager
def gated(**settings: Any) -> Iterator[Gated]:
    gate = threading.Event()
    classifier = FakeClassifier(gate=gate)
    app = create_app(Settings(**{"workers": 1, "queue": 2, **settings}), classifier)
    with ThreadPoolExecutor(50) as clients, served(app) as client:
        try:
            yield Gated(client, classifier, gate, clients, app.state.service.executor)
        finally:
            gate.set()
