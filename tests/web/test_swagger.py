"""The reference at /docs: complete without a network."""

import hashlib
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from resnet_service.api import static
from resnet_service.api.app import create_app
from resnet_service.api.openapi import document
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.browser import chromium, visit
from tests.support.images import CAT
from tests.support.servers import REPOSITORY, served
from tools import openapi

VIEWER = REPOSITORY / "src" / "resnet_service" / "swagger"
VIEWER_PATHS = {path for path in static.PATHS if path.startswith("/docs")}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served(create_app(Settings(), FakeClassifier())) as client:
        yield client


def test_the_viewer_comes_whole_and_from_here_only(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {f"/{path}" for path in needed if path.startswith("docs/")} | {"/docs"} == VIEWER_PATHS
    for path in needed:
        answer = client.get(f"/{path}")
        assert answer.status_code == 200, path
        again = client.get(f"/{path}", headers={"If-None-Match": answer.headers.get("etag", "-")})
        assert again.status_code == (304 if "etag" in answer.headers else 200)


@pytest.mark.parametrize("path", sorted(VIEWER_PATHS))
def test_it_may_reach_nothing_else_and_runs_no_inline_script(client: httpx.Client, path: str) -> None:
    policy = dict(part.split(" ", 1) for part in client.get(path).headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "http" not in " ".join(policy.values())


def test_the_viewer_is_as_published() -> None:
    digests = re.findall(r"^\| `(\S+)` \| `([0-9a-f]{64})` \|$", (VIEWER / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _ in digests} == {"swagger-ui-bundle.js", "swagger-ui.css"}
    for name, digest in digests:
        assert hashlib.sha256((VIEWER / name).read_bytes()).hexdigest() == digest, name


def test_what_clients_rely_on_has_not_changed_unnoticed() -> None:
    """Where the change is meant: `make openapi`."""
    assert openapi.document() == (REPOSITORY / openapi.TARGET).read_text()


@pytest.mark.slow
def test_a_visitor_reads_and_tries_an_operation(client: httpx.Client) -> None:
    """In a real browser, which reports every request and every violation of the policy; some ten seconds."""
    url = str(client.base_url)
    operations = client.get(document.PATH).json()["paths"]
    with chromium() as browser, visit(browser, f"{url}/docs") as page:
        expect(page.locator(".opblock")).to_have_count(sum(map(len, operations.values())))
        predict = page.locator("#operations-Classify-predict")
        predict.locator("button.opblock-summary-control").click()
        predict.get_by_role("button", name="Try it out").click()
        predict.locator("input[type=file]").set_input_files(CAT)
        predict.get_by_role("button", name="Execute").click()
        expect(predict.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
        expect(predict.locator(".live-responses-table")).to_contain_text("class 0")
