"""The service behind a path prefix of a real nginx, configured as the documentation says."""

import re
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx
import pytest
from huggingface_hub import InferenceClient
from playwright.sync_api import FilePayload, expect
from tritonclient.http import InferenceServerClient

from resnet_service.api.app import create_app
from resnet_service.client import Client
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings, load_settings
from tests.support.browser import chromium, visit
from tests.support.images import CAT, encoded, noise
from tests.support.nginx import nginx, recipes
from tests.support.servers import served

pytestmark = pytest.mark.slow

REMOVED, NAMED = recipes()
IMAGE = encoded(noise(24, 16), "PNG")
FILE: FilePayload = {"name": "noise.png", "mimeType": "image/png", "buffer": IMAGE}


@pytest.fixture(scope="module", params=[REMOVED, NAMED], ids=["removed by nginx", "named by nginx"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of the service behind nginx, without a slash at its end."""
    with (
        served(create_app(load_settings(trusted_proxies="loopback"), FakeClassifier())) as service,
        nginx(tmp_path_factory.mktemp("nginx"), request.param, str(service.base_url)) as proxy,
    ):
        yield f"{proxy}/vision"


def test_the_prefix_leads_to_the_page_with_or_without_a_slash(url: str) -> None:
    page = httpx.get(url, follow_redirects=True)
    assert str(page.url) == f"{url}/"
    assert page.text == httpx.get(f"{url}/").text
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert httpx.get(urljoin(f"{url}/", link)).status_code == 200, link


def test_a_visitor_classifies_an_image_on_the_page(url: str) -> None:
    with chromium() as browser, visit(browser, url) as page:
        page.locator("#file").set_input_files(FILE)
        expect(page.locator("#results")).to_contain_text("class 0")
        page.get_by_role("link", name="API reference").click()
        expect(page).to_have_url(f"{url}/docs")
        expect(page.locator(".opblock").first).to_be_visible()


def test_a_reader_tries_an_operation(url: str) -> None:
    with chromium() as browser, visit(browser, f"{url}/docs") as page:
        predict = page.locator("#operations-Classify-predict")
        predict.locator("button.opblock-summary-control").click()
        predict.get_by_role("button", name="Try it out").click()
        predict.locator("input[type=file]").set_input_files(CAT)
        predict.get_by_role("button", name="Execute").click()
        expect(predict.locator(".request-url")).to_contain_text(f"{url}/predict")
        expect(predict.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")


def test_the_servers_of_the_document_lead_to_the_service(url: str) -> None:
    described = httpx.get(f"{url}/openapi.json")
    (server,) = described.json()["servers"]
    assert urljoin(str(described.url), server["url"]).rstrip("/") == url


def test_clients_find_the_service(url: str) -> None:
    with Client(url) as client:
        assert client.predict(IMAGE).best.label == "class 0"
    triton = InferenceServerClient(url.removeprefix("http://"))
    assert triton.is_server_live()
    assert triton.get_model_metadata("fake")["name"] == "fake"
    triton.close()
    for model in (url, f"{url}/"):
        hub = InferenceClient(model=model)
        assert hub.image_classification(IMAGE)[0]["label"] == "class 0"


def test_the_service_refuses_what_is_too_large_not_nginx(url: str) -> None:
    """So that clients get a problem document; nginx answers HTML, or 502 where the service stops reading early."""
    settings = Settings()
    for size in (settings.max_body_bytes + 1, settings.max_batch_bytes):
        answer = httpx.post(f"{url}/predict", content=bytes(size), headers={"Content-Type": "image/png"})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large"), size
    assert httpx.post(f"{url}/predict/batch", content=bytes(settings.max_batch_bytes + 1)).status_code == 413


def test_a_client_cannot_name_a_prefix(url: str) -> None:
    """It would reach paths that a rule of the proxy closes."""
    headers = {"X-Forwarded-Prefix": "/x"}
    assert httpx.get(f"{url}/x/health/live", headers=headers).status_code == 404
    assert httpx.get(f"{url}/health/live", headers=headers).status_code == 200
