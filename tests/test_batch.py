"""Several pictures in one request, over a real socket."""

from collections.abc import Iterator
from http import HTTPStatus

import httpx
import pytest

from resnet_service.api.app import create_app
from resnet_service.fake import FakeClassifier
from resnet_service.settings import Settings
from support.pictures import encoded, noise
from support.servers import served
from support.wire import connected, head
from test_admission import gated, until
from test_api import PICTURE, assert_problem

Form = list[tuple[str, tuple[str, bytes]]]


def form(*pictures: bytes) -> Form:
    return [("files", (f"{number}.jpg", picture)) for number, picture in enumerate(pictures)]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = Settings(workers=2, max_batch=4, max_body_bytes=20_000, max_batch_bytes=60_000)
    with served(create_app(settings, FakeClassifier())) as client:
        yield client


def test_each_fails_alone_and_in_order(client: httpx.Client) -> None:
    large = encoded(noise(100, 100), "PNG")
    assert len(large) > 20_000
    answer = client.post("/predict/batch?top_k=1", files=form(PICTURE, b"hello", large, PICTURE))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [one["filename"] for one in body["results"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert [one.get("error", {}).get("code") for one in body["results"]] == [
        None,
        "not_an_image",
        "body_too_large",
        None,
    ]
    assert len(body["results"][0]["predictions"]) == 1
    assert body["model"]["name"] == "fake"


def test_more_than_the_limits_is_refused(client: httpx.Client) -> None:
    refused = client.post("/predict/batch", files=form(*[PICTURE] * 5))
    assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pictures", "more than 4")
    refused = client.post("/predict/batch", files=form(bytes(61_000)))
    assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large")
    # The larger body is this route's alone.
    refused = client.post("/predict", files={"file": bytes(30_000)})
    assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large")


def test_what_is_no_form_of_files_is_refused(client: httpx.Client) -> None:
    assert_problem(client.post("/predict/batch", files={"file": PICTURE}), HTTPStatus.BAD_REQUEST, "no_file")
    text = client.post("/predict/batch", files={"files": (None, "cat.jpg")})
    assert_problem(text, HTTPStatus.BAD_REQUEST, "malformed_form", "text where a file should be")
    raw = client.post("/predict/batch", content=PICTURE)
    assert_problem(raw, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
    response = client.post("/predict/batch?top_k=9", files=form(PICTURE))
    assert_problem(response, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_top_k")


def test_a_batch_takes_a_place_for_each_thread_and_no_more() -> None:
    with gated(workers=2, queue=4) as server:
        asked = server.clients.submit(server.client.post, "/predict/batch", files=form(*[PICTURE] * 8))
        until(lambda: server.executor.running == 2)
        assert server.executor.waiting == 0
        other = server.ask()
        until(lambda: server.executor.waiting == 1)
        server.gate.set()
        assert len(asked.result(10).json()["results"]) == 8
        assert other.result(10).status_code == 200
        until(lambda: server.executor.running + server.executor.waiting == 0)


def test_one_place_is_enough() -> None:
    with gated(workers=2, queue=1) as server:
        server.fill(3)
        asked = server.clients.submit(server.client.post, "/predict/batch", files=form(*[PICTURE] * 4))
        until(lambda: server.executor.waiting == 2)
        server.gate.set()
        assert asked.result(10).status_code == 200
        until(lambda: server.executor.running + server.executor.waiting == 0)


def test_a_full_queue_refuses_a_batch_too() -> None:
    with gated(workers=1, queue=1) as server:
        server.fill(2)
        refused = server.client.post("/predict/batch", files=form(PICTURE))
        assert_problem(refused, HTTPStatus.TOO_MANY_REQUESTS, "overloaded")


def test_the_deadline_is_for_all_of_them() -> None:
    with gated(workers=1, deadline=0.3) as server:
        response = server.client.post("/predict/batch", files=form(PICTURE, PICTURE, PICTURE))
        assert_problem(response, HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded", "within 0.3 s")
        server.gate.set()
        until(lambda: server.executor.running + server.executor.waiting == 0)
        assert server.classifier.started == 1


def test_the_rest_is_skipped_when_the_client_has_left() -> None:
    with gated(workers=1) as server:
        request = httpx.Request("POST", "http://test/predict/batch", files=form(PICTURE, PICTURE, PICTURE))
        body = request.read()
        whole = head(path="/predict/batch", Content_Type=request.headers["content-type"], Content_Length=len(body))
        with connected(str(server.client.base_url)) as leaver:
            leaver.sendall(whole + body)
            until(lambda: server.executor.running == 1)
        assert server.client.get("/health/live").status_code == 200  # the loop has turned since
        server.gate.set()
        until(lambda: server.executor.running + server.executor.waiting == 0)
        assert server.classifier.started == 1
