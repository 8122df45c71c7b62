"""Random requests: every answer is a documented one."""

import asyncio
import gc
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fuzz.damage import damaged
from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise

IMAGES = [encoded(noise(24, 16), name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]
BOUNDARY = "limit"
MAX_BODY = 20_000


class InProcess:
    """The application with its lifespan, without a socket; its exceptions are raised here."""

    def __init__(self, classifier: FakeClassifier) -> None:
        self.app = create_app(Settings(max_body_bytes=MAX_BODY, max_pixels=100_000, workers=1), classifier)
        self.documented = {
            (path, method.upper()): {int(status) for status in operation["responses"]}
            for path, operations in self.app.openapi()["paths"].items()
            for method, operation in operations.items()
        }
        self._loop = asyncio.new_event_loop()
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._state = self._loop.run_until_complete(self._lifespan.__aenter__())
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self._with_state), base_url="http://test")

    async def _with_state(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, "state": dict(self._state or {})}, receive, send)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def bounded() -> httpx.Response:
            async with asyncio.timeout(10):
                return await self._client.request(method, path, **request)

        return self._loop.run_until_complete(bounded())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.run_until_complete(self._lifespan.__aexit__(None, None, None))
        self._loop.close()


@pytest.fixture(scope="module")
def service() -> Iterator[InProcess]:
    service = InProcess(FakeClassifier())
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    try:
        yield service
        assert service.ask("POST", "/predict", content=IMAGES[0]).status_code == 200
        gc.collect()  # other applications of this process
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert threading.active_count() <= threads + 1  # the one worker
        executor = service.app.state.service.executor
        assert (executor.running, executor.waiting) == (0, 0)
    finally:
        service.close()


def assert_documented(service: InProcess, response: httpx.Response) -> None:
    """The answer is one of OpenAPI's for the path, or 404 or 405, and no server error."""
    path = response.request.url.path
    known = service.documented.get((path, response.request.method), {200, 404, 405})
    assert response.status_code in known, f"{response.status_code} for {response.request.method} {path}"
    assert response.status_code < 500
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert sorted(json.loads(response.content)) == ["code", "detail", "status", "title", "type"]


names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20)
values = st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte not in b"\0\r\n"))
KNOWN = """Accept Accept-Language Authorization Content-Type Content-Encoding Cookie Expect Host If-None-Match Origin
Range X-API-Key X-Request-ID X-Forwarded-For Transfer-Encoding"""
known_names = st.sampled_from(KNOWN.split())
fields = st.lists(st.tuples(st.one_of(known_names, names).map(str.encode), values), max_size=12)
queries = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(("top_k", "lang", "class_id", "format", "")), st.text(max_size=8)),
        st.one_of(st.text(max_size=20), st.integers().map(str), st.floats().map(str)),
    ),
    max_size=5,
)
media_types = st.one_of(
    st.sampled_from(("image/jpeg", "image/*", "application/octet-stream", "", "text/html", "application/json"))
    | st.sampled_from(("multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x"))
    | st.just(f"multipart/form-data; boundary={BOUNDARY}"),
    st.binary(max_size=80).map(lambda value: value.decode("latin-1").translate({0: None, 10: None, 13: None})),
)
pieces = st.one_of(
    st.sampled_from((b"\r\n", b"\n", b"--", b"--limit", b"\r\n--limit\r\n", b"\r\n--limit--\r\n", b": ", b"; ", b'"'))
    | st.sampled_from((b"Content-Disposition: form-data; name=", b'"file"; filename="a.jpg"', b"filename*=utf-8''%ff"))
    | st.sampled_from((b"Content-Transfer-Encoding: base64", b"Content-Type: image/png", b"charset=\xff")),
    st.binary(max_size=30),
    st.sampled_from(IMAGES),
)
forms = st.lists(pieces, max_size=20).map(b"".join)
damage = st.builds(damaged, st.sampled_from(IMAGES), st.integers(0, 2**32))
bodies = st.one_of(st.binary(max_size=300), damage, forms, st.just(bytes(MAX_BODY + 1)))

thorough = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@thorough
@given(body=bodies, media_type=media_types, fields=fields, query=queries)
@example(body=b"x", media_type="multipart/form-data; boundary=\xff", fields=[], query=[])
@example(body=b"", media_type="image/jpeg", fields=[(b"Content-Encoding", b"gzip")], query=[("top_k", "1" * 5000)])
def test_whatever_is_sent_to_predict_the_answer_is_documented(
    service: InProcess, body: bytes, media_type: str, fields: list[tuple[bytes, bytes]], query: list[tuple[str, str]]
) -> None:
    headers = [*fields, (b"Content-Type", media_type.encode("latin-1"))]
    response = service.ask("POST", "/predict", content=body, headers=headers, params=encodable(query))
    assert_documented(service, response)


@thorough
@given(form=forms)
def test_whatever_a_form_looks_like_the_answer_is_documented(service: InProcess, form: bytes) -> None:
    media_type = f"multipart/form-data; boundary={BOUNDARY}"
    response = service.ask("POST", "/predict", content=b"--limit\r\n" + form, headers={"Content-Type": media_type})
    assert_documented(service, response)


@thorough
@given(
    method=st.sampled_from(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "x")),
    path=st.one_of(
        st.sampled_from(("/predict", "/predict/", "/labels", "/metadata", "/health/live", "/health/ready", "/", "//"))
        | st.sampled_from(("/openapi.json", "/docs", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/web/app.js%00")),
        st.text(max_size=40).map(lambda text: "/" + text),
    ),
    fields=fields,
    body=st.binary(max_size=50),
)
def test_whatever_path_is_asked_for_the_answer_is_documented(
    service: InProcess, method: str, path: str, fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    try:
        url = httpx.URL("http://test").copy_with(path=path.encode("utf-8", "ignore").decode())
    except httpx.InvalidURL:
        return
    response = service.ask(method, str(url), content=body, headers=fields)
    if method != "HEAD":
        assert response.status_code < 500
        assert b"root:" not in response.content
        if response.status_code >= 400:
            # Below /v2 and at /, errors have the format of other clients.
            foreign = url.path == "/" or url.path == "/v2" or url.path.startswith("/v2/")
            expected = "application/json" if foreign else "application/problem+json"
            assert response.headers["content-type"] == expected


@pytest.mark.parametrize("path", ["/predict/", "/labels/", "/health/live/"])
def test_redirects_ignore_the_host_field(service: InProcess, path: str) -> None:
    response = service.ask("GET", path, headers={"Host": "elsewhere.example"})
    assert response.status_code == 404
    assert "location" not in response.headers


def encodable(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (name.encode("utf-8", "ignore").decode(), value.encode("utf-8", "ignore").decode()) for name, value in query
    ]


def test_a_failure_would_be_seen() -> None:
    """An unexpected exception leaves the application, so that these tests see it."""
    failing = InProcess(FakeClassifier(failure=ValueError("secret")))
    try:
        with pytest.raises(ValueError, match="secret"):
            failing.ask("POST", "/predict", content=IMAGES[0])
    finally:
        failing.close()
