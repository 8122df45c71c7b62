"""Single requests, to check readiness and answers and to time the first one; wrk generates the load."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

_BOUNDARY = "benchmark-boundary"
_PAUSE_SECONDS = 0.003


class Upload(NamedTuple):
    """A request body with an image."""

    content_type: str
    body: bytes


def upload(image: bytes, field: str | None) -> Upload:
    """Return a JPEG in a form with one ``field``, or as a raw body."""
    if field is None:
        return Upload("image/jpeg", image)
    head = (
        f"--{_BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return Upload(
        f"multipart/form-data; boundary={_BOUNDARY}", head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    )


def post(port: int, path: str, sent: Upload, timeout: float) -> tuple[int, bytes]:
    """Send one request over a new connection; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, sent.body, {"Content-Type": sent.content_type})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def first_answer(port: int, path: str, sent: Upload, *, ended: Callable[[], bool], within: float) -> bytes:
    """Repeat a request until its status is 200; return the body.

    Raises:
        RuntimeError: The server ended, or did not answer in time.

    """
    deadline = time.monotonic() + within
    last = "no connection"
    while (left := deadline - time.monotonic()) > 0:
        try:
            status, body = post(port, path, sent, timeout=left)
            if status == 200:
                return body
            last = f"{status} {body[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        if ended():
            raise RuntimeError(f"the server ended before it answered; last attempt: {last}")
        time.sleep(_PAUSE_SECONDS)
    raise RuntimeError(f"no answer within {within:.0f} s; last attempt: {last}")


def classes(body: bytes) -> list[int]:
    """Return the class indices of an answer, most probable first.

    TorchServe answers ``{index: score}``; BentoML with batching answers a list of one.

    Raises:
        ValueError: The format is unknown.

    """
    try:
        answer: Any = json.loads(body)
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        if "predictions" in answer:
            return [int(one["class_id"]) for one in answer["predictions"]]
        return [int(index) for index, _ in sorted(answer.items(), key=lambda pair: -pair[1])]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"unknown format of answer: {body[:200]!r}") from error
