"""Several images in one request, over a real socket."""

import time
from collections.abc import Iterator
from http import HTTPStatus

import httpx
import pytest

from resnet_service.api.app import create_app
from resnet_service.errors import BrokenImage, InvalidModelOutput
from resnet_service.inference.fake import FakeClassifier
from resnet_service.inference.results import Classification
from resnet_service.settings import Settings
from tests.support.gated import IMAGE, gated
from tests.support.images import encoded, noise
from tests.support.problems import assert_problem
from tests.support.servers import served
from tests.support.waiting import until
from tests.support.wire import connected, head

Form = list[tuple[str, tuple[str, bytes]]]


def form(*images: bytes) -> Form:
    return [("files", (f"{number}.jpg", image)) for number, image in enumerate(images)]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = Settings(workers=2, max_batch=4, max_body_bytes=20_000, max_batch_bytes=60_000)
    with served(create_app(settings, FakeClassifier())) as client:
        yield client


def test_each_fails_alone_and_in_order(client: httpx.Client) -> None:
    large = encoded(noise(100, 100), "PNG")
    assert len(large) > 20_000
    answer = client.post("/predict/batch?top_k=1", files=form(IMAGE, b"hello", large, IMAGE))
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
    refused = client.post("/predict/batch", files=form(*[IMAGE] * 5))
    assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pictures", "limit of 4")
    refused = client.post("/predict/batch", files=form(bytes(61_000)))
    assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large")
    # The larger body is this route's alone.
    refused = client.post("/predict", files={"file": bytes(30_000)})
    assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large")


def wide(width: int) -> bytes:
    return encoded(noise(width, 30), "PNG")


class Uneven(FakeClassifier):
    """The broader an image is, the sooner it is answered; some answers fail."""

    def __init__(self, failures: dict[int, Exception] | None = None) -> None:
        super().__init__()
        self.failures = failures or {}
        self.done: list[int] = []

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        answer = super().classify(data, top_k)
        if (failure := self.failures.get(answer.image.width)) is not None:
            raise failure
        time.sleep(max(0.0, (40 - answer.image.width) / 20))
        self.done.append(answer.image.width)
        return answer


def test_answers_are_in_the_order_of_the_images_whichever_was_done_first() -> None:
    classifier = Uneven()
    widths = [20, 41, 42, 43, 44, 45]
    with served(create_app(Settings(workers=2), classifier)) as client:
        body = client.post("/predict/batch", files=form(*map(wide, widths))).json()
    assert [one["image"]["width"] for one in body["results"]] == widths
    assert sorted(classifier.done) == widths
    assert classifier.done != widths  # the first one was not the first to be done


def test_an_image_that_breaks_the_network_fails_alone_and_marks_it_unhealthy() -> None:
    classifier = Uneven({41: InvalidModelOutput("NaN in logit 7"), 43: BrokenImage("It is torn.")})
    classifier.warm_up_failure = None
    app = create_app(Settings(workers=1, queue=0), classifier)
    with served(app) as client:
        classifier.warm_up_failure = InvalidModelOutput("still")
        answer = client.post("/predict/batch", files=form(wide(40), wide(41), wide(42), wide(43)))
        assert answer.status_code == 200, answer.text
        codes = [one.get("error", {}).get("code") for one in answer.json()["results"]]
        assert codes == [None, "unsound_output", None, "broken_image"]
        assert "logit 7" not in answer.text  # of what is our own fault, the log tells
        assert client.get("/health/ready").status_code == HTTPStatus.SERVICE_UNAVAILABLE
        # There is one slot, and it was released.
        executor = app.state.service.executor
        until(lambda: executor.running + executor.waiting == 0)
        assert client.post("/predict/batch", files=form(wide(42))).status_code == 200


def test_an_unexpected_error_fails_them_all_and_releases_the_slots() -> None:
    classifier = Uneven({41: RuntimeError("a secret of ours")})
    app = create_app(Settings(workers=2, queue=0), classifier)
    with served(app) as client:
        answer = client.post("/predict/batch", files=form(wide(40), wide(41), wide(42)))
        assert_problem(answer, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error")
        assert "secret" not in answer.text
        executor = app.state.service.executor
        until(lambda: executor.running + executor.waiting == 0)
        for _ in range(3):
            assert client.post("/predict/batch", files=form(wide(40), wide(42))).status_code == 200


def test_the_number_is_checked_before_an_image_is_worked_on(client: httpx.Client) -> None:
    assert client.post("/predict/batch", files=form(*[IMAGE] * 4)).status_code == 200
    for count in (5, 50):
        refused = client.post("/predict/batch", files=form(*[b"x"] * count))
        assert_problem(refused, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pictures")


def test_what_is_no_form_of_files_is_refused(client: httpx.Client) -> None:
    assert_problem(client.post("/predict/batch", files={"file": IMAGE}), HTTPStatus.BAD_REQUEST, "no_file")
    text = client.post("/predict/batch", files={"files": (None, "cat.jpg")})
    assert_problem(text, HTTPStatus.BAD_REQUEST, "malformed_form", "text instead of a file")
    raw = client.post("/predict/batch", content=IMAGE)
    assert_problem(raw, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
    response = client.post("/predict/batch?top_k=9", files=form(IMAGE))
    assert_problem(response, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_top_k")


def test_a_batch_takes_a_slot_for_each_thread_and_no_more() -> None:
    with gated(workers=2, queue=4) as server:
        asked = server.clients.submit(server.client.post, "/predict/batch", files=form(*[IMAGE] * 8))
        until(lambda: server.executor.running == 2)
        assert server.executor.waiting == 0
        other = server.ask()
        until(lambda: server.executor.waiting == 1)
        server.gate.set()
        assert len(asked.result(10).json()["results"]) == 8
        assert other.result(10).status_code == 200
        until(lambda: server.executor.running + server.executor.waiting == 0)


def test_one_slot_is_enough() -> None:
    with gated(workers=2, queue=1) as server:
        server.fill(3)
        asked = server.clients.submit(server.client.post, "/predict/batch", files=form(*[IMAGE] * 4))
        until(lambda: server.executor.waiting == 2)
        server.gate.set()
        assert asked.result(10).status_code == 200
        until(lambda: server.executor.running + server.executor.waiting == 0)


def test_a_full_queue_refuses_a_batch_too() -> None:
    with gated(workers=1, queue=1) as server:
        server.fill(2)
        refused = server.client.post("/predict/batch", files=form(IMAGE))
        assert_problem(refused, HTTPStatus.TOO_MANY_REQUESTS, "overloaded")


def test_the_deadline_is_for_all_of_them() -> None:
    with gated(workers=1, deadline=0.3) as server:
        response = server.client.post("/predict/batch", files=form(IMAGE, IMAGE, IMAGE))
        assert_problem(response, HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded", "within 0.3 s")
        server.gate.set()
        until(lambda: server.executor.running + server.executor.waiting == 0)
        assert server.classifier.started == 1


def test_the_deadline_is_one_for_all_of_them() -> None:
    classifier = FakeClassifier(seconds=0.2)
    with served(create_app(Settings(workers=1, deadline=0.7), classifier)) as client:
        response = client.post("/predict/batch", files=form(*[IMAGE] * 8))
        assert_problem(response, HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded", "within 0.7 s")
        assert classifier.started < 8


def test_the_rest_is_skipped_when_the_client_has_left() -> None:
    with gated(workers=1) as server:
        request = httpx.Request("POST", "http://test/predict/batch", files=form(IMAGE, IMAGE, IMAGE))
        body = request.read()
        whole = head(path="/predict/batch", Content_Type=request.headers["content-type"], Content_Length=len(body))
        with connected(str(server.client.base_url)) as leaver:
            leaver.sendall(whole + body)
            until(lambda: server.executor.running == 1)
        until(lambda: 'status="499"' in server.client.get("/metrics").text)
        server.gate.set()
        until(lambda: server.executor.running + server.executor.waiting == 0)
        assert server.classifier.started == 1
