import logging

import pytest

from resnet_service.api.app import create_app
from resnet_service.api_keys import Keys
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.servers import served

KEY = "a-key-of-the-tests"


@pytest.mark.parametrize(
    ("method", "path", "key", "size", "status", "route"),
    [
        ("POST", "/predict", None, 9, 401, "/predict"),
        ("POST", "/v2/models/fake/infer", None, 9, 401, "/v2/models/{model}/infer"),
        ("GET", "/predict", None, 0, 401, "/predict"),
        ("POST", "/nowhere", None, 9, 401, "unmatched"),
        ("POST", "/predict", KEY, 3000, 413, "/predict"),
        ("POST", "/", KEY, 3000, 413, "/"),
        ("POST", "/embed", KEY, 2000, 429, "/embed"),
        ("POST", "/nowhere", KEY, 9, 404, "unmatched"),
    ],
)
def test_an_answer_before_routing_names_its_route(
    caplog: pytest.LogCaptureFixture, method: str, path: str, key: str | None, size: int, status: int, route: str
) -> None:
    settings = Settings(api_keys=Keys([KEY]), max_body_bytes=2500, metrics_open=True)
    app = create_app(settings, classifier=FakeClassifier())
    app.state.body_budget.limit = 1500
    caplog.set_level(logging.INFO, "resnet_service.access")
    with served(app) as client:
        headers = {"X-API-Key": key} if key else {}
        assert client.request(method, path, content=b"x" * size, headers=headers).status_code == status
        metrics = client.get("/metrics").text
    assert f'requests_total{{method="{method}",route="{route}",status="{status}"}} 1.0' in metrics
    lines = [record.__dict__ for record in caplog.records if record.name == "resnet_service.access"]
    assert [(line["route"], line["status"]) for line in lines if line["status"] == status] == [(route, status)]
