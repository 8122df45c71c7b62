"""Code that both clients share: requests, responses, retries and errors."""

import email.utils
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx

from resnet_service import __version__
from resnet_service.client import errors
from resnet_service.client.answers import (
    BatchAnswer,
    Embedding,
    Explanation,
    Labels,
    Metadata,
    PredictAnswer,
    batch_from_json,
    from_json,
)
from resnet_service.client.images import ImageSource, image_bytes, image_name

T = TypeVar("T")

DEFAULT_URL = "http://localhost:8080"
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRIES = 3
DEFAULT_RETRY_SECONDS = 60.0

_RAW = {"Content-Type": "application/octet-stream"}
_FIRST_WAIT = 0.5  # seconds
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the function that reads its response."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    files: list[tuple[str, tuple[str, bytes]]] | None = None

    def answer(self, response: httpx.Response) -> T:
        """Return the response as a value.

        Raises:
            UnexpectedAnswer: It is not a response of this service.

        """
        try:
            return self.read(response)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise errors.UnexpectedAnswer(
                f"{self.method} {self.path}: not a response of resnet-service, or one of another version ({error!r})."
            ) from error


@dataclass(frozen=True)
class RetryPolicy:
    """Retries 429 and 503, at most ``retries`` times and for ``seconds`` in all.

    ``Retry-After`` gives the wait; without it, waits double from half a second. Up to a tenth is added at random, so
    that clients that were refused together do not retry together.
    """

    retries: int
    seconds: float

    def wait(self, response: httpx.Response, attempt: int, elapsed: float) -> float | None:
        """Return the seconds to wait before a retry, or ``None`` for no retry; ``attempt`` counts from 0."""
        if response.status_code not in (429, 503) or attempt >= self.retries:
            return None
        asked = retry_after(response)
        wait = _FIRST_WAIT * 2**attempt if asked is None else asked
        wait *= 1 + random.random() / 10  # noqa: S311 - spreads clients, keeps no secret
        return wait if elapsed + wait <= self.seconds else None


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of ``Retry-After``, a number or a date; ``None`` if it is neither."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def check(response: httpx.Response) -> None:
    """Raise the error of a response that is not a success.

    Raises:
        ServiceRefused: The status is not 2xx; the subclass depends on it.

    """
    status = response.status_code
    if 200 <= status < 300:
        return
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = f"http_{status}", " ".join(response.text[:200].split()) or response.reason_phrase
    kinds: dict[int, type[errors.ServiceRefused]] = {
        401: errors.Unauthorized,
        403: errors.Unauthorized,
        429: errors.Overloaded,
        503: errors.Unavailable,
    }
    kind = kinds.get(status, errors.ServerFailed if status >= 500 else errors.ServiceRefused)
    raise kind(status, code, detail, request_id=response.headers.get("X-Request-ID"), retry_after=retry_after(response))


@contextmanager
def translated(base_url: httpx.URL) -> Iterator[None]:
    """Translate httpx's errors into this package's.

    A request whose connection broke is not retried, since the service may have processed it.
    """
    try:
        yield
    except httpx.TimeoutException as error:
        raise errors.TimedOut(f"{base_url} did not answer in time ({type(error).__name__}).") from error
    except httpx.TransportError as error:
        raise errors.Unreachable(f"{base_url} cannot be reached: {error}") from error


def headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    always = {"User-Agent": f"resnet-service-client/{__version__}"}
    return always if api_key is None else {**always, "Authorization": f"Bearer {api_key}"}


def timeouts(seconds: float) -> httpx.Timeout:
    """Return the time limits of a request: ``seconds`` for an answer, at most 5 s for a connection."""
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))


def predict(image: ImageSource, top_k: int | None, lang: str | None) -> Call[PredictAnswer]:
    """Return the request for the classes of one image."""
    return _post("/predict", _json(PredictAnswer), image, _params(top_k=top_k, lang=lang))


def predict_batch(images: Sequence[ImageSource], top_k: int | None, lang: str | None) -> Call[BatchAnswer]:
    """Return the request for the classes of several images."""
    if not images:
        raise ValueError("There is no image in the batch; pass at least one.")
    files = [("files", (image_name(image, number), image_bytes(image))) for number, image in enumerate(images)]
    params = _params(top_k=top_k, lang=lang)
    return Call("POST", "/predict/batch", lambda response: batch_from_json(response.json()), params=params, files=files)


def explain(image: ImageSource, class_id: int | None, lang: str | None) -> Call[Explanation]:
    """Return the request for a class activation map."""
    return _post("/explain", _json(Explanation), image, _params(format="json", class_id=class_id, lang=lang))


def overlay(image: ImageSource, class_id: int | None) -> Call[bytes]:
    """Return the request for an image with its class activation map drawn over it, as PNG."""
    return _post("/explain", _content("image/png"), image, _params(format="overlay", class_id=class_id))


def embed(image: ImageSource, normalize: bool | None) -> Call[Embedding]:
    """Return the request for an image's feature vector."""
    chosen = None if normalize is None else str(normalize).lower()
    return _post("/embed", _json(Embedding), image, _params(normalize=chosen))


def labels(lang: str | None) -> Call[Labels]:
    """Return the request for the model's classes."""
    return Call("GET", "/labels", _json(Labels), params=_params(lang=lang))


def metadata() -> Call[Metadata]:
    """Return the request for the served model."""
    return Call("GET", "/metadata", _json(Metadata))


def ready() -> Call[None]:
    """Return the request for readiness."""
    return Call("GET", "/health/ready", lambda response: None)


def _post(path: str, read: Callable[[httpx.Response], T], image: ImageSource, params: dict[str, str]) -> Call[T]:
    return Call("POST", path, read, params=params, headers=_RAW, content=image_bytes(image))


def _params(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _json(kind: type[T]) -> Callable[[httpx.Response], T]:
    return lambda response: from_json(kind, response.json())


def _content(media_type: str) -> Callable[[httpx.Response], bytes]:
    def read(response: httpx.Response) -> bytes:
        if response.headers.get("Content-Type") != media_type:
            raise ValueError(f"not {media_type}")
        return response.content

    return read
