"""Health that tells the truth, while the network does not."""

import threading
from http import HTTPStatus

import pytest

from resnet_service.api.app import create_app
from resnet_service.errors import InvalidModelOutput
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.problems import assert_problem
from tests.support.servers import served
from tests.support.waiting import until

IMAGE = encoded(noise(40, 30), "JPEG")


@pytest.mark.parametrize("failure", [InvalidModelOutput("NaN"), RuntimeError("the runtime is broken")])
def test_after_a_failure_it_is_unready_until_a_trial_image_succeeds(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = FakeClassifier()
    caplog.set_level("CRITICAL", "uvicorn.error")
    with served(create_app(Settings(), classifier)) as client:
        assert client.get("/health/ready").status_code == 200
        classifier.failure = classifier.warm_up_failure = failure
        before = classifier.warm_ups
        failed = client.post("/predict", content=IMAGE)
        assert failed.status_code == 500
        assert failed.headers.get("connection") == ("close" if isinstance(failure, RuntimeError) else None)
        assert_problem(client.get("/health/ready"), HTTPStatus.SERVICE_UNAVAILABLE, "not_ready")
        until(lambda: classifier.warm_ups >= before + 2)
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        classifier.failure = None
        assert client.post("/predict", content=IMAGE).status_code == 200, "each answer is checked for itself"
        assert client.get("/health/ready").status_code == 503, "an answer is no trial image"
        classifier.warm_up_failure = None
        until(lambda: client.get("/health/ready").status_code == 200)
        assert classifier.warm_ups - before <= 10, "at most once a second"


def test_what_clients_get_wrong_does_not_make_it_unready() -> None:
    classifier = FakeClassifier(seconds=0.3)
    with served(create_app(Settings(deadline=0.2), classifier)) as client:
        before = classifier.warm_ups
        assert client.post("/predict", content=b"no image").status_code in (415, 504)
        assert client.post("/predict", content=IMAGE).status_code == 504
        assert client.get("/health/ready").status_code == 200
        assert classifier.warm_ups == before, "nothing was to be checked"


def test_it_is_unready_while_a_thread_does_not_come_back(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    caplog.set_level("INFO", "resnet_service")
    with served(create_app(Settings(workers=1, deadline=0.2), FakeClassifier(gate=gate))) as client:
        try:
            assert client.post("/predict", content=IMAGE).status_code == 504
            until(lambda: client.get("/health/ready").status_code == 503)
            assert "has not come back for more than 0.4 s" in client.get("/health/ready").json()["detail"]
        finally:
            gate.set()
        until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post("/predict", content=IMAGE).status_code == 200
    assert "All inference threads have come back." in caplog.messages


def test_it_lives_while_all_threads_are_at_work() -> None:
    gate = threading.Event()
    with served(create_app(Settings(workers=1, deadline=0.2), FakeClassifier(gate=gate))) as client:
        assert client.post("/predict", content=IMAGE).status_code == 504
        assert client.get("/health/live").elapsed.total_seconds() < 0.5
        gate.set()
