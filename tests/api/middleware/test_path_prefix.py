import logging
from collections.abc import Iterator

import httpx
import pytest

from resnet_service.api.app import create_app
from resnet_service.api_keys import Keys
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings, load_settings
from tests.support.images import encoded, noise
from tests.support.servers import served

IMAGE = encoded(noise(24, 16), "PNG")
HEADER = "X-Forwarded-Prefix"
KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Return a client that is a trusted proxy."""
    with served(create_app(load_settings(trusted_proxies="loopback"), FakeClassifier())) as client:
        yield client


@pytest.mark.parametrize(
    ("prefixes", "path", "status"),
    [
        (["/vision"], "/vision/health/live", 200),
        (["/vision/"], "/vision/health/live", 200),
        (["/a/vision-2.0_~"], "/a/vision-2.0_~/health/live", 200),
        # The proxy has removed it.
        (["/vision"], "/health/live", 200),
        (["/"], "/health/live", 200),
        # No whole segment.
        (["/v"], "/v2/health/live", 200),
        (["/vision"], "/other/health/live", 404),
        (["/vision"], "/vision/vision/health/live", 404),
        # Not a prefix.
        ([], "/vision/health/live", 404),
        ([""], "/vision/health/live", 404),
        (["vision"], "/vision/health/live", 404),
        (["//vision"], "//vision/health/live", 404),
        (["/vision//"], "/vision//health/live", 404),
        (["/a//vision"], "/a//vision/health/live", 404),
        (["https://evil.example/vision"], "/vision/health/live", 404),
        (["/https://evil.example"], "/https://evil.example/health/live", 404),
        (["/a b"], "/a%20b/health/live", 404),
        (["/vi%73ion"], "/vision/health/live", 404),
        (["/x/.."], "/x/%2e%2e/health/live", 404),
        (["/" + 199 * "x"], "/" + 199 * "x" + "/health/live", 200),
        (["/" + 200 * "x"], "/" + 200 * "x" + "/health/live", 404),
        # Of several, not each is the proxy's.
        (["/vision", "/vision"], "/vision/health/live", 404),
        (["/x, /vision"], "/vision/health/live", 404),
    ],
)
def test_a_trusted_proxy_names_the_prefix(prefixes: list[str], path: str, status: int, client: httpx.Client) -> None:
    request = client.build_request("GET", "/", headers=[(HEADER, prefix) for prefix in prefixes])
    # httpx would send a URL without its dot segments.
    request.extensions["target"] = path.encode()
    assert client.send(request).status_code == status


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24"])
def test_others_are_not_believed(trusted: str) -> None:
    with served(create_app(load_settings(trusted_proxies=trusted), FakeClassifier())) as client:
        assert client.get("/vision/health/live", headers={HEADER: "/vision"}).status_code == 404


def test_the_prefix_alone_is_the_page_and_where_images_are_posted(client: httpx.Client) -> None:
    for method in ("GET", "HEAD"):
        answer = client.request(method, "/a/vision", headers={HEADER: "/a/vision"})
        assert (answer.status_code, answer.headers["location"]) == (307, "vision/")
    page = client.get("/a/vision", headers={HEADER: "/a/vision"}, follow_redirects=True)
    assert page.url.path == "/a/vision/"
    assert page.text == client.get("/").text
    headers = {HEADER: "/a/vision", "Content-Type": "image/png"}
    answer, same = (client.post(path, content=IMAGE, headers=headers) for path in ("/a/vision", "/"))
    assert answer.status_code == 200
    assert answer.json() == same.json()


def test_keys_metrics_and_log_know_the_path_behind_the_prefix(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(
        trusted_proxies=load_settings(trusted_proxies="loopback").trusted_proxies, api_keys=Keys([KEY]), max_batch=1
    )
    caplog.set_level(logging.INFO, "resnet_service.access")
    with served(create_app(settings, FakeClassifier())) as client:
        for prefix in ("/vision", "/health/live"):  # an open path opens nothing below it
            headers = {HEADER: prefix, "Content-Type": "image/png"}
            assert client.post(f"{prefix}/predict", content=IMAGE, headers=headers).status_code == 401
            answer = client.post(f"{prefix}/predict", content=IMAGE, headers={**headers, "X-API-Key": KEY})
            assert answer.status_code == 200
            assert client.get(prefix, headers=headers).status_code == 307
        metrics = client.get("/metrics").text
    for status in (200, 401):
        assert f'requests_total{{method="POST",route="/predict",status="{status}"}} 2.0' in metrics
    lines = [record.__dict__ for record in caplog.records if record.name == "resnet_service.access"]
    assert [(line["route"], line["status"]) for line in lines] == [("/predict", 401), ("/predict", 200), ("/", 307)] * 2
