"""Every route over a real socket, with a classifier that needs no network."""

import asyncio
import logging
import re
import socket
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from resnet_service.api import static
from resnet_service.api.app import create_app
from resnet_service.errors import InvalidModelOutput
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import CAT, encoded, noise
from tests.support.problems import assert_problem
from tests.support.servers import served

IMAGE = encoded(noise(40, 30), "JPEG")
LIMIT = 200_000


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served(create_app(Settings(max_body_bytes=LIMIT), FakeClassifier())) as client:
        yield client


@pytest.mark.parametrize(
    "request_",
    [
        {"files": {"file": IMAGE}},
        {"files": {"file": ("image.txt", IMAGE, "text/plain")}},
        {"content": IMAGE, "headers": {"Content-Type": "image/jpeg"}},
        {"content": IMAGE, "headers": {"Content-Type": "image/png"}},
        {"content": IMAGE, "headers": {"Content-Type": "application/octet-stream"}},
        {"content": IMAGE},
        {"content": iter([IMAGE[:100], IMAGE[100:]])},
    ],
    ids=["form", "misnamed", "raw", "mistyped", "octets", "untyped", "chunked"],
)
def test_predict_takes_an_image_in_every_usual_way(client: httpx.Client, request_: dict[str, Any]) -> None:
    answer = client.post("/predict", **request_)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["predictions"] == [
        {"class_id": 0, "label": "class 0", "score": 1.0},
        {"class_id": 1, "label": "class 1", "score": 0.0},
        {"class_id": 2, "label": "class 2", "score": 0.0},
    ]
    assert body["model"] == {"name": "fake", "arch": "resnet18", "version": "000000000000"}
    assert body["image"] == {"format": "JPEG", "width": 40, "height": 30}
    assert body["timing_ms"].keys() == {"decode", "preprocess", "inference", "total"}


def test_top_k_is_heard(client: httpx.Client) -> None:
    answer = client.post("/predict?top_k=1", content=IMAGE)
    assert len(answer.json()["predictions"]) == 1


@pytest.mark.parametrize("top_k", ["0", "-1", "4", "many", "1.5", ""])
def test_bad_top_k(client: httpx.Client, top_k: str) -> None:
    response = client.post(f"/predict?top_k={top_k}", content=IMAGE)
    assert_problem(response, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_top_k", "top_k")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({}, HTTPStatus.BAD_REQUEST, "no_file"),
        ({"files": {"other": IMAGE}}, HTTPStatus.BAD_REQUEST, "no_file"),
        ({"files": {"file": b""}}, HTTPStatus.BAD_REQUEST, "no_file"),
        (
            {"files": {"file": (None, "text")}},
            HTTPStatus.BAD_REQUEST,
            "no_file",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            HTTPStatus.BAD_REQUEST,
            "malformed_form",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
            HTTPStatus.BAD_REQUEST,
            "malformed_form",
        ),
        ({"files": [("file", IMAGE)] * 2}, HTTPStatus.BAD_REQUEST, "malformed_form"),
        ({"json": {"a": 1}}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
        ({"data": {"file": "x"}}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
        ({"content": b"%PDF-1.7"}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_an_image"),
        ({"files": {"file": ("cat.jpg", b"hello", "image/jpeg")}}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_an_image"),
        ({"content": IMAGE[:300]}, HTTPStatus.UNPROCESSABLE_ENTITY, "broken_image"),
        ({"content": bytes(LIMIT + 1)}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large"),
        ({"content": iter([bytes(1000)] * 1000)}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large"),
        ({"files": {"file": bytes(LIMIT)}}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large"),
    ],
)
def test_bad_requests(client: httpx.Client, request_: dict[str, Any], status: HTTPStatus, code: str) -> None:
    assert_problem(client.post("/predict", **request_), status, code)
    assert client.get("/health/ready").status_code == 200


def test_a_promise_of_too_much_is_refused_before_it_is_read(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert b" 413 " in connection.recv(4096)


def test_too_many_pixels(client: httpx.Client) -> None:
    bomb = encoded(noise(1, 1).resize((8000, 7000)), "PNG")
    assert_problem(
        client.post("/predict", content=bomb), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pixels", "56,000,000"
    )


def test_unknown_paths_and_methods_have_the_same_shape(client: httpx.Client) -> None:
    assert_problem(client.get("/nothing"), HTTPStatus.NOT_FOUND, "not_found")
    response = client.get("/predict")
    assert_problem(response, HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_metadata_names_model_runtime_and_service(client: httpx.Client) -> None:
    body = client.get("/metadata").json()
    assert body["model"]["version"] == "000000000000"
    assert body["runtime"] == "fake"
    assert body["metadata"]["num_classes"] == 3
    assert body["limits"] == {"max_body_bytes": LIMIT, "max_pixels": 50_000_000}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["serving_since"])


def test_labels(client: httpx.Client) -> None:
    body = client.get("/labels").json()
    assert [label["name"] for label in body["classes"]] == ["class 0", "class 1", "class 2"]


def test_health(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json() == {"status": "ok"}


def test_the_page_comes_whole_and_from_here_only(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name, kind in (("app.js", "javascript"), ("style.css", "css"), ("icon.svg", "svg")):
        assert f'"web/{name}"' in page.text
        assert kind in client.get(f"/web/{name}").headers["content-type"]
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_not_one_route_more() -> None:
    """No route manages anything. A new route must be added here, even if it is not documented."""
    app = create_app(Settings(), FakeClassifier())
    documented = {
        (path, method.upper()) for path, operations in app.openapi()["paths"].items() for method in operations
    }
    assert documented == {
        ("/predict", "POST"),
        ("/predict/batch", "POST"),
        ("/explain", "POST"),
        ("/embed", "POST"),
        ("/metadata", "GET"),
        ("/labels", "GET"),
        ("/metrics", "GET"),
        ("/health/live", "GET"),
        ("/health/ready", "GET"),
        ("/", "POST"),
        ("/v2", "GET"),
        ("/v2/health/live", "GET"),
        ("/v2/health/ready", "GET"),
        ("/v2/models/{model}", "GET"),
        ("/v2/models/{model}/ready", "GET"),
        ("/v2/models/{model}/infer", "POST"),
        ("/v2/models/{model}/versions/{version}", "GET"),
        ("/v2/models/{model}/versions/{version}/ready", "GET"),
        ("/v2/models/{model}/versions/{version}/infer", "POST"),
    }
    others = {
        (path, method) for path, method in every_route(app.routes) if (path, method) not in documented | IMPLIED_HEADS
    }
    assert others == {(path, "GET") for path in (*static.PATHS, "/openapi.json")}


# Starlette answers HEAD where a plain route answers GET.
IMPLIED_HEADS = {(path, "HEAD") for path in (*static.PATHS, "/openapi.json")}


def every_route(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield the path and method of each route; of what is no HTTP route, a WebSocket or a mount, its type."""
    for route in routes:
        if hasattr(route, "original_router"):  # FastAPI's for a router that was included
            yield from every_route(route.original_router.routes)
        elif isinstance(route, Route):
            yield from ((route.path, method) for method in route.methods or ())
        else:
            yield type(route).__name__, str(route)


@pytest.mark.parametrize("media_type", ["application/vnd.bentoml+pickle", "application/x-pickle", "text/html"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_pickles_and_their_like_are_415(client: httpx.Client, path: str, media_type: str) -> None:
    response = client.post(path, content=b"cos\nsystem\n(S'true'\ntR.", headers={"Content-Type": media_type})
    assert_problem(response, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", media_type)


def test_no_route_takes_an_address() -> None:
    """A service that fetches URLs from clients can be made to read from its internal network."""
    document = create_app(Settings(), FakeClassifier()).openapi()
    names: set[str] = set()

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            assert part.get("format") not in ("uri", "iri", "url"), part
            if isinstance(part.get("in"), str):
                names.add(part["name"])
            if isinstance(part.get("properties"), dict):
                names.update(part["properties"])
            for inner in part.values():
                collect(inner)
        elif isinstance(part, list):
            for inner in part:
                collect(inner)

    for operations in document["paths"].values():
        for operation in operations.values():
            collect(operation.get("parameters"))
            collect(resolved(operation.get("requestBody"), document))
    assert {"top_k", "file"} <= names
    assert not [name for name in names if re.search(r"ur[il]|href|link|host|path|callback|webhook", name.lower())]


def resolved(part: Any, document: dict[str, Any]) -> Any:
    """Put in what a schema refers to."""
    if isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str):
            return resolved(document["components"]["schemas"][reference.rsplit("/", 1)[1]], document)
        return {key: resolved(inner, document) for key, inner in part.items()}
    return [resolved(inner, document) for inner in part] if isinstance(part, list) else part


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/web/app.js", 200),
        ("GET", "/labels", 200),
        ("POST", "/predict", 400),
        ("GET", "/x", 404),
    ],
)
def test_every_answer_says_that_its_type_is_meant(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    # get_list: twice would be wrong too.
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert response.headers.get_list("cross-origin-resource-policy") == ["same-origin"]


def test_so_does_one_that_no_application_sees(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert b"\r\nx-content-type-options: nosniff\r\n" in connection.recv(4096).lower()


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/style.css"])
def test_the_page_is_shut_off_from_other_sites_and_may_use_the_camera(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    allowed = dict(feature.split("=") for feature in headers["permissions-policy"].split(", "))
    assert allowed.pop("camera") == "(self)"
    assert {"geolocation", "microphone"} <= allowed.keys()
    assert set(allowed.values()) == {"()"}


@pytest.mark.parametrize("failure", [RuntimeError("a secret"), InvalidModelOutput("a secret")])
def test_what_is_the_servers_fault_is_a_fixed_sentence(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    with served(create_app(Settings(), FakeClassifier(failure=failure))) as client:
        response = client.post("/predict", content=IMAGE)
    code = getattr(failure, "code", "internal_error")
    assert_problem(response, HTTPStatus.INTERNAL_SERVER_ERROR, code, "its log says why")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in response.text


def test_every_thread_is_warm_before_the_first_request() -> None:
    classifier = FakeClassifier()
    with served(create_app(Settings(workers=3), classifier)):
        assert classifier.warm_ups == 1
        assert len(classifier.warmed_in) == 3


def test_until_started_it_lives_but_is_not_ready() -> None:
    async def ask(path: str) -> httpx.Response:
        transport = httpx.ASGITransport(create_app(Settings(), FakeClassifier()))  # runs no lifespan: never starts
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await (client.post if path == "/predict" else client.get)(path)

    assert asyncio.run(ask("/health/live")).status_code == 200
    for path in ("/health/ready", "/predict", "/metadata", "/labels"):
        assert_problem(asyncio.run(ask(path)), HTTPStatus.SERVICE_UNAVAILABLE, "not_ready")


def test_large_files_stay_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A read-only container has nowhere to spool to."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "does" / "not" / "exist"))
    with served(create_app(Settings(), FakeClassifier())) as client:
        large = encoded(noise(1200, 1200), "PNG")
        assert len(large) > 2_000_000
        assert client.post("/predict", files={"file": large}).status_code == 200


def test_the_client_may_leave_early(caplog: pytest.LogCaptureFixture) -> None:
    with served(create_app(Settings(), FakeClassifier())) as client:

        def breaks_off() -> Iterator[bytes]:
            yield IMAGE[:100]
            raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            client.post("/predict", content=breaks_off())
        assert client.post("/predict", content=CAT.read_bytes()).status_code == 200
    assert "Traceback" not in caplog.text
