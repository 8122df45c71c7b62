"""``HEAD`` wherever there is ``GET``, and conditional requests, as bytes on a socket."""

import logging
import re
from collections.abc import Iterator

import httpx
import pytest

from resnet_service.api import static
from resnet_service.api.app import create_app
from resnet_service.api_keys import Keys
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.servers import served
from tests.support.wire import connected, head, read_to_end

KEY = "a-key-of-the-tests"
READABLE = [
    "/health/live",
    "/health/ready",
    "/metadata",
    "/labels?lang=zh",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/fake",
    "/v2/models/fake/ready",
    "/v2/models/fake/versions/000000000000",
    "/v2/models/fake/versions/000000000000/ready",
    "/openapi.json",
    *sorted(static.PATHS),
]
# Different in every answer.
VOLATILE = (b"date", b"x-request-id")


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served(create_app(Settings(), FakeClassifier())) as client:
        yield client


def exchange(client: httpx.Client, method: str, path: str, **fields: str) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return status line, header fields and body of an answer, as they came."""
    with connected(str(client.base_url)) as connection:
        connection.sendall(head(method, path, Connection="close", **fields))
        begin, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    status, *lines = begin.split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    return status, {name: value for name, value in headers.items() if name not in VOLATILE}, body


@pytest.mark.parametrize("path", READABLE)
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    status, headers, body = exchange(client, "GET", path)
    assert status == b"HTTP/1.1 200 OK"
    assert int(headers[b"content-length"]) == len(body) > 0
    assert exchange(client, "HEAD", path) == (status, headers, b"")


def test_every_route_that_can_be_read_is_in_this_test() -> None:
    paths = {
        path
        for path, operations in create_app(Settings(), FakeClassifier()).openapi()["paths"].items()
        if "get" in operations
    }
    asked = {
        re.sub("/versions/[0-9]+", "/versions/{version}", path.partition("?")[0]).replace(
            "/models/fake", "/models/{model}"
        )
        for path in READABLE
    }
    assert paths - asked == {"/metrics"}


def test_head_of_metrics(client: httpx.Client) -> None:
    status, headers, body = exchange(client, "HEAD", "/metrics")
    assert (status, body) == (b"HTTP/1.1 200 OK", b"")
    assert int(headers[b"content-length"]) > 1000


@pytest.mark.parametrize("path", ["/predict", "/nothing", "/v2/models/other", "/labels?lang=fr"])
def test_an_error_has_no_body_either(client: httpx.Client, path: str) -> None:
    status, headers, body = exchange(client, "GET", path)
    assert body
    assert exchange(client, "HEAD", path) == (status, headers, b"")


def test_the_methods_that_a_path_allows_are_named(client: httpx.Client) -> None:
    assert client.post("/labels").headers["allow"] == "GET, HEAD"
    assert set(client.put("/docs").headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert client.head("/predict").headers["allow"] == "POST"


def test_it_is_counted_and_logged_as_head(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "resnet_service.access")
    for path in ("/labels", "/health/live", "/v2/models/fake/ready", "/", "/nothing"):
        client.head(path)
    metrics = client.get("/metrics").text
    for route, status in (
        ("/labels", 200),
        ("/health/live", 200),
        ("/v2/models/{model}/ready", 200),
        ("/", 200),
        ("unmatched", 404),
    ):
        assert f'requests_total{{method="HEAD",route="{route}",status="{status}"}}' in metrics
    lines = [record.__dict__ for record in caplog.records if record.name == "resnet_service.access"]
    sent = [(line["route"], line["sent"]) for line in lines if line["method"] == "HEAD"]
    assert ("/labels", 0) in sent
    assert ("/health/live", 0) in sent


def test_keys_hold_for_head() -> None:
    with served(create_app(Settings(api_keys=Keys([KEY])), FakeClassifier())) as client:
        assert exchange(client, "HEAD", "/labels")[0].startswith(b"HTTP/1.1 401")
        assert exchange(client, "HEAD", "/labels")[2] == b""
        assert exchange(client, "HEAD", "/labels", X_API_Key=KEY)[0] == b"HTTP/1.1 200 OK"
        assert exchange(client, "HEAD", "/health/live")[0] == b"HTTP/1.1 200 OK"


def test_requests_behind_it_on_the_connection_are_answered(client: httpx.Client) -> None:
    with connected(str(client.base_url)) as connection:
        connection.sendall(head("HEAD", "/labels") * 3 + head("GET", "/health/live", Connection="close"))
        answers = read_to_end(connection)
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    assert answers.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("condition", "changed"),
    [("{etag}", False), ("W/{etag}", False), ('"x", {etag}', False), ("*", False), (" * ", False), ('"x"', True)],
)
def test_a_client_that_has_the_content_gets_304(
    client: httpx.Client, method: str, condition: str, changed: bool
) -> None:
    etag = client.get("/web/app.js").headers["etag"]
    sent = condition.format(etag=etag)
    status, headers, body = exchange(client, method, "/web/app.js", If_None_Match=sent)
    assert status == (b"HTTP/1.1 200 OK" if changed else b"HTTP/1.1 304 Not Modified")
    assert headers[b"etag"] == etag.encode()
    assert headers[b"cache-control"] == b"no-cache"
    assert (len(body) > 0) == (changed and method == "GET")


def test_several_fields_are_one_list(client: httpx.Client) -> None:
    etag = client.get("/").headers["etag"]
    answer = client.get("/", headers=[("If-None-Match", '"x"'), ("If-None-Match", etag)])
    assert answer.status_code == 304
