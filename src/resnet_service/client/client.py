"""The synchronous client; ``calls`` has the code that both clients share."""

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
    """A client of one service; use it in a ``with`` block, or call ``close``. Thread-safe.

    A call that fails raises a ``ClientError``. If the service is busy (429) or not ready (503), the call is retried.

    Args:
        base_url: URL of the service.
        api_key: Sent as ``Authorization: Bearer``.
        timeout: Seconds to wait for an answer; for a connection, at most 5 s.
        retries: Maximum number of retries.
        retry_seconds: Maximum seconds of a call with its retries; a wait that would exceed them is not started.
        transport: Replaces the network in tests.

    """

    def __init__(
        self,
        base_url: str = calls.DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = calls.DEFAULT_TIMEOUT,
        retries: int = calls.DEFAULT_RETRIES,
        retry_seconds: float = calls.DEFAULT_RETRY_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = calls.RetryPolicy(retries, retry_seconds)
        self._http = httpx.Client(
            base_url=base_url,
            headers=calls.headers(api_key),
            timeout=calls.timeouts(timeout),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, image: ImageSource, *, top_k: int | None = None, lang: str | None = None) -> PredictAnswer:
        """Classify an image: return ``top_k`` classes (default: the service's), named in the language ``lang``."""
        return self._ask(calls.predict(image, top_k, lang))

    def predict_batch(
        self, images: Sequence[ImageSource], *, top_k: int | None = None, lang: str | None = None
    ) -> BatchAnswer:
        """Classify several images; an invalid image does not fail the others."""
        return self._ask(calls.predict_batch(images, top_k, lang))

    def explain(self, image: ImageSource, *, class_id: int | None = None, lang: str | None = None) -> Explanation:
        """Return the class activation map of a class, by default the most probable one."""
        return self._ask(calls.explain(image, class_id, lang))

    def overlay(self, image: ImageSource, *, class_id: int | None = None) -> bytes:
        """Return the image with the class activation map drawn over it, as PNG."""
        return self._ask(calls.overlay(image, class_id))

    def embed(self, image: ImageSource, *, normalize: bool | None = None) -> Embedding:
        """Return an image's feature vector; ``normalize`` scales it to length 1."""
        return self._ask(calls.embed(image, normalize))

    def labels(self, *, lang: str | None = None) -> Labels:
        """Return all classes of the model."""
        return self._ask(calls.labels(lang))

    def metadata(self) -> Metadata:
        """Return the served model and its metadata."""
        return self._ask(calls.metadata())

    def ready(self) -> bool:
        """Return whether the service is ready; asks once, without retries."""
        try:
            self._ask(calls.ready(), retry=False)
        except Unavailable:
            return False
        return True

    def _ask(self, call: calls.Call[T], *, retry: bool = True) -> T:
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
            wait = self._retry.wait(response, attempt, time.monotonic() - begun) if retry else None
            if wait is None:
                calls.check(response)
                return call.answer(response)
            time.sleep(wait)
            attempt += 1
