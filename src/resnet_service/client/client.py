"""The synchronous client; what it shares with the other is in ``calls``."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx

from resnet_service.client import calls
from resnet_service.client.answers import BatchAnswer, Embedding, Explanation, Labels, Metadata, PredictAnswer
from resnet_service.client.errors import Unavailable
from resnet_service.client.images import ImageSource

T = TypeVar("T")


class Client:
    """Asks one service; use it in a ``with`` block, or ``close`` it. Threads may share it.

    Every call raises a ``ClientError``; a busy service (429) or one that is starting (503) is asked again.

    Args:
        base_url: Where the service is.
        api_key: Sent as ``Authorization: Bearer``.
        timeout: Seconds for an answer, and for a connection at most five of them.
        retries: Times that a call is tried again.
        retry_seconds: Seconds that a call may last if it is tried again; a wait beyond them is not begun.
        transport: Instead of the network; for tests.

    """

    def __init__(
        self,
        base_url: str = "http://localhost:8080",
        *,
        api_key: str | None = None,
        timeout: float = 30,
        retries: int = 3,
        retry_seconds: float = 60,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = calls.RetryPolicy(retries, retry_seconds)
        self._http = httpx.Client(
            base_url=base_url,
            headers=calls.headers(api_key),
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5)),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def predict(self, image: ImageSource, *, top_k: int | None = None, lang: str | None = None) -> PredictAnswer:
        """Name what is in an image: ``top_k`` classes, by default 5, in the language ``lang``."""
        return self._ask(calls.predict(image, top_k, lang))

    def predict_batch(
        self, images: Sequence[ImageSource], *, top_k: int | None = None, lang: str | None = None
    ) -> BatchAnswer:
        """Name what is in several images; one that cannot be answered fails alone."""
        return self._ask(calls.predict_batch(images, top_k, lang))

    def explain(self, image: ImageSource, *, class_id: int | None = None, lang: str | None = None) -> Explanation:
        """Say which parts of an image spoke for a class, by default the most probable."""
        return self._ask(calls.explain(image, class_id, lang))

    def overlay(self, image: ImageSource, *, class_id: int | None = None) -> bytes:
        """Return the image with that laid over it, as PNG."""
        return self._ask(calls.overlay(image, class_id))

    def embed(self, image: ImageSource, *, normalize: bool | None = None) -> Embedding:
        """Return an image's feature vector, by default as the service does; ``normalize``: of length 1."""
        return self._ask(calls.embed(image, normalize))

    def labels(self, *, lang: str | None = None) -> Labels:
        """Return all classes of the model."""
        return self._ask(calls.labels(lang))

    def metadata(self) -> Metadata:
        """Say which model is served."""
        return self._ask(calls.metadata())

    def ready(self) -> bool:
        """Say whether requests may be sent; asked once, since waiting for it is the caller's business."""
        try:
            self._ask(calls.ready(), again=False)
        except Unavailable:
            return False
        return True

    def _ask(self, call: calls.Call[T], *, again: bool = True) -> T:
        begun = time.monotonic()
        attempt = 0
        while True:
            with calls.translated(self._http.base_url):
                response = self._http.request(
                    call.method,
                    call.path,
                    params=call.params,
                    headers=call.headers,
                    content=call.content,
                    files=call.files,
                )
            wait = self._retry.wait(response, attempt, time.monotonic() - begun) if again else None
            if wait is None:
                calls.check(response)
                return call.answer(response)
            time.sleep(wait)
            attempt += 1
