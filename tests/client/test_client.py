"""The client: against the real application, against stubs, and in an environment with only httpx."""

import asyncio
import dataclasses
import email.utils
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from resnet_service.api.app import create_app
from resnet_service.api_keys import Keys
from resnet_service.client import (
    AsyncClient,
    BatchAnswer,
    Class,
    Client,
    ClientError,
    Failure,
    Overloaded,
    PredictAnswer,
    ServerFailed,
    ServiceRefused,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from resnet_service.client.calls import RetryPolicy, retry_after
from resnet_service.errors import InvalidModelOutput
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import CAT, encoded, noise
from tests.support.servers import served

IMAGE = encoded(noise(40, 30), "PNG")
Handler = Callable[[httpx.Request], httpx.Response]

ANSWER = {
    "predictions": [{"class_id": 1, "label": "one", "score": 0.5}],
    "model": {"name": "m", "arch": "resnet18", "version": "0"},
    "image": {"format": "PNG", "width": 40, "height": 30},
    "timing_ms": {"decode": 1, "preprocess": 1, "inference": 1, "total": 3},
}
PROBLEM = {"type": "about:blank", "title": "?", "status": 0, "code": "a_code", "detail": "A sentence."}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(create_app(Settings(), FakeClassifier())) as client:
        yield str(client.base_url)


def stub(handler: Handler, **options: Any) -> Client:
    return Client("http://stub", transport=httpx.MockTransport(handler), **options)


class Driven:
    """The asynchronous client, with the interface of the synchronous one."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url, **options)

    def __enter__(self) -> "Driven":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self._runner.run(getattr(self._client, name)(*arguments, **options))


both_clients = pytest.mark.parametrize("kind", [Client, Driven], ids=["sync", "async"])


def test_it_asks_the_real_service(url: str) -> None:
    with Client(url) as client:
        answer = client.predict(IMAGE, top_k=2)
        assert answer.best.label == "class 0"
        assert [one.class_id for one in answer.predictions] == [0, 1]
        assert (answer.image.format, answer.image.width, answer.model.name) == ("PNG", 40, "fake")
        assert answer.timing_ms.total > 0
        assert client.labels().classes[2] == Class(2, None, "class 2")
        assert client.metadata().metadata["num_classes"] == 3
        assert client.ready()


def test_so_does_the_asynchronous_one(url: str) -> None:
    async def ask() -> tuple[PredictAnswer, bool, int]:
        async with AsyncClient(url) as client:
            answers = await asyncio.gather(*(client.predict(IMAGE) for _ in range(5)))
            return answers[-1], await client.ready(), len((await client.labels()).classes)

    answer, ready, classes = asyncio.run(ask())
    assert (answer.best.label, ready, classes) == ("class 0", True, 3)


def test_both_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, Any]:
        return {
            name: {key: hint for key, hint in vars(kind)[name].__annotations__.items() if key != "return"}
            for name in vars(kind)
            if not name.startswith("_") and name not in ("close", "aclose")
        }

    assert calls(Client) == calls(AsyncClient)
    assert {"predict", "predict_batch", "explain", "overlay", "embed", "labels", "metadata", "ready"} == set(
        calls(Client)
    )


class Opened(io.BytesIO):
    name = "folder/opened.png"


@pytest.mark.parametrize(
    "source",
    [CAT, str(CAT), *(kind(CAT.read_bytes()) for kind in (bytes, bytearray, memoryview, io.BytesIO))],
    ids=["path", "name", "bytes", "bytearray", "memoryview", "file"],
)  # fmt: skip
def test_images_in_every_form(url: str, source: Any) -> None:
    with Client(url) as client:
        assert client.predict(source).image.format == "JPEG"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "YCbCr", "LA", "I;16"])
def test_images_of_pillow(url: str, mode: str) -> None:
    image = Image.new(mode, (40, 30)) if mode in ("CMYK", "YCbCr", "I;16") else noise(40, 30).convert(mode)
    with Client(url) as client:
        assert client.predict(image).image.format == "PNG"


def test_pixels_of_pillow_arrive_as_they_are() -> None:
    sent: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json=ANSWER)

    image = noise(40, 30)
    stub(handler).predict(image)
    assert Image.open(io.BytesIO(sent[0])).tobytes() == image.tobytes()


@pytest.mark.parametrize("source", [None, 3, io.StringIO("x")])
def test_what_is_no_image(source: Any) -> None:
    with pytest.raises(TypeError, match="An image is bytes"):
        stub(lambda request: httpx.Response(200, json=ANSWER)).predict(source)


def test_answers_are_frozen(url: str) -> None:
    with Client(url) as client, pytest.raises(dataclasses.FrozenInstanceError):
        client.predict(IMAGE).best.score = 1.0  # type: ignore[misc]


@both_clients
def test_a_refusal_has_code_detail_status(kind: Any, url: str) -> None:
    with kind(url) as client:
        with pytest.raises(ServiceRefused) as caught:
            client.predict(b"%PDF-1.7")
        error = caught.value
        assert (error.status, error.code) == (415, "not_an_image")
        assert re.fullmatch(r"[0-9a-f]{32}", error.request_id or "")
        assert "PDF" in error.detail
        with pytest.raises(ServiceRefused, match="invalid_top_k"):
            client.predict(IMAGE, top_k=4)
        with pytest.raises(ServiceRefused, match="unsupported_language"):
            client.labels(lang="fr")
        with pytest.raises(ServiceRefused, match="not_an_image"):
            client.embed(b"%PDF-1.7")
        with pytest.raises(ServiceRefused, match="too_many_pictures"):
            client.predict_batch([IMAGE] * 17)


@both_clients
def test_failures_of_the_service_are_typed(kind: Any) -> None:
    fake = FakeClassifier(failure=InvalidModelOutput("NaN"))
    with served(create_app(Settings(), fake)) as http, kind(str(http.base_url)) as client:
        for ask in (client.predict, client.explain, client.overlay, client.embed):
            with pytest.raises(ServerFailed, match="unsound_output") as caught:
                ask(IMAGE)
            assert not isinstance(caught.value, Unavailable)
        (failed,) = client.predict_batch([IMAGE]).results
        assert (failed.status, failed.code) == (500, "unsound_output")


@both_clients
def test_a_full_service_is_overloaded_after_all_tries(kind: Any) -> None:
    gate = threading.Event()
    app = create_app(Settings(workers=1, queue=0), FakeClassifier(gate=gate))
    with served(app) as http, kind(str(http.base_url), retries=1, retry_seconds=0.5) as client:
        first = threading.Thread(target=http.post, args=("/predict",), kwargs={"content": IMAGE})
        first.start()
        try:
            deadline = time.monotonic() + 20
            while app.state.service.executor.running < 1:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            for ask in (client.predict, client.explain, client.embed, lambda image: client.predict_batch([image])):
                with pytest.raises(Overloaded) as caught:
                    ask(IMAGE)
                assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "overloaded", 1)
        finally:
            gate.set()
            first.join(20)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ServiceRefused), (401, Unauthorized), (403, Unauthorized), (404, ServiceRefused), (413, ServiceRefused),
     (422, ServiceRefused), (500, ServerFailed), (502, ServerFailed), (504, ServerFailed), (302, ServiceRefused)],
)  # fmt: skip
def test_other_statuses_are_typed_and_never_tried_again(status: int, kind: type[ServiceRefused]) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        # Even if the header asks for it.
        headers = {"Retry-After": "0", "X-Request-ID": "r-1"}
        return httpx.Response(status, json={**PROBLEM, "status": status}, headers=headers)

    with pytest.raises(ServiceRefused) as caught:
        stub(handler).predict(IMAGE)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, "a_code", "r-1")
    assert len(asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_busy_is_tried_again_when_it_says_so(status: int) -> None:
    asked: list[tuple[float, bytes]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append((time.monotonic(), request.content))
        if len(asked) < 3:
            return httpx.Response(status, json=PROBLEM, headers={"Retry-After": "1" if len(asked) == 1 else "0"})
        return httpx.Response(200, json=ANSWER)

    # After the first attempt, a file has been read to its end.
    assert stub(handler).predict(Opened(IMAGE)).best.label == "one"
    (first, _), (second, _), (third, _) = asked
    assert 1 <= second - first < 1.5
    assert third - second < 0.3
    assert {body for _, body in asked} == {IMAGE}


@pytest.mark.parametrize(("status", "kind"), [(429, Overloaded), (503, Unavailable)])
def test_tries_are_bounded_in_number(status: int, kind: type[ServiceRefused]) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json=PROBLEM, headers={"Retry-After": "0"})

    with pytest.raises(kind):
        stub(handler, retries=4).predict(IMAGE)
    assert len(asked) == 5


def test_tries_are_bounded_in_time_and_a_long_wait_is_not_begun() -> None:
    begun = time.monotonic()
    with pytest.raises(Overloaded) as caught:
        stub(lambda request: httpx.Response(429, json=PROBLEM, headers={"Retry-After": "3600"})).predict(IMAGE)
    assert caught.value.retry_after == 3600
    with pytest.raises(Overloaded):
        stub(
            lambda request: httpx.Response(429, json=PROBLEM, headers={"Retry-After": "1"}),
            retries=99,
            retry_seconds=1.5,
        ).predict(IMAGE)
    assert time.monotonic() - begun < 2


def test_the_asynchronous_one_tries_again_without_blocking() -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        refused = httpx.Response(429, json=PROBLEM, headers={"Retry-After": "1"})
        return refused if len(asked) <= 5 else httpx.Response(200, json=ANSWER)

    async def ask() -> None:
        async with AsyncClient("http://stub", transport=httpx.MockTransport(handler)) as client:
            await asyncio.gather(*(client.predict(IMAGE) for _ in range(5)))

    begun = time.monotonic()
    asyncio.run(ask())
    assert len(asked) == 10
    assert time.monotonic() - begun < 2.5  # one after the other, they would wait for 5 s


def test_how_long_to_wait() -> None:
    policy = RetryPolicy(retries=5, seconds=60)

    def answer(value: str | None) -> httpx.Response:
        return httpx.Response(429, headers={} if value is None else {b"Retry-After": value.encode("latin-1")})

    assert 7 <= (policy.wait(answer("7"), 0, 0) or 0) <= 7.7
    for value in (None, "soon", "-1", "²", "1.5"):
        waits = [policy.wait(answer(value), attempt, 0) or 0 for attempt in range(3)]
        assert all(0.5 * 2**attempt <= wait <= 0.55 * 2**attempt for attempt, wait in enumerate(waits))
    # Not all at the same time.
    assert len({policy.wait(answer("7"), 0, 0) for _ in range(20)}) > 10
    assert policy.wait(answer("7"), 5, 0) is None
    assert policy.wait(answer("7"), 0, 55) is None
    assert policy.wait(answer("9" * 5000), 0, 0) is None
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert 15 < (retry_after(answer(date)) or 0) <= 20
    assert retry_after(answer("Wed, 21 Oct 2015 07:28:00 GMT")) == 0


def test_a_busy_service_is_asked_again_for_real() -> None:
    gate = threading.Event()
    app = create_app(Settings(workers=1, queue=0), FakeClassifier(gate=gate))
    with served(app) as http, Client(str(http.base_url)) as client:
        first = threading.Thread(target=client.predict, args=(IMAGE,))
        first.start()
        while app.state.service.executor.running < 1:
            time.sleep(0.005)
        threading.Timer(0.3, gate.set).start()
        assert client.predict(IMAGE).best.label == "class 0"
        first.join(10)


def test_ready_is_asked_once_and_false_when_not() -> None:
    fake = FakeClassifier()
    with served(create_app(Settings(), fake)) as http, Client(str(http.base_url)) as client:
        fake.failure = fake.warm_up_failure = InvalidModelOutput("NaN")
        with pytest.raises(ServerFailed, match="unsound_output"):
            client.predict(IMAGE)
        assert not client.ready()
        asked = 'resnet_service_requests_total{method="GET",route="/health/ready",status="503"} 1.0'
        assert asked in http.get("/metrics").text


def test_the_key_is_sent_and_the_version_named() -> None:
    seen: list[httpx.Headers] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200, json=ANSWER)

    stub(handler, api_key="secret").predict(IMAGE)
    stub(handler).predict(IMAGE)
    assert seen[0]["authorization"] == "Bearer secret"
    assert "authorization" not in seen[1]
    assert seen[0]["user-agent"].startswith("resnet-service-client/")


def test_unreachable_and_too_late() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unreachable, match="cannot be reached"):
        client.predict(IMAGE)
    slow = create_app(Settings(), FakeClassifier(seconds=1))
    with served(slow) as http, Client(str(http.base_url), timeout=0.2) as client, pytest.raises(TimedOut):
        client.predict(IMAGE)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>A proxy's page</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"predictions": [{}]}),
        httpx.Response(200, json=None),
        httpx.Response(200, content=b"\xff\xfe"),
    ],
)
def test_answers_of_others_are_an_error_of_ours(response: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer):
        stub(lambda request: response).predict(IMAGE)


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[]", b'{"code": 1}', b"\xff" * 100_000])
def test_refusals_of_others_are_told_in_short(body: bytes) -> None:
    with pytest.raises(ServerFailed) as caught:
        stub(lambda request: httpx.Response(502, content=body)).predict(IMAGE)
    assert caught.value.code == "http_502"
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value, ClientError)


# Stubs for the other routes, by their contract.


def recorded(answer: Any, seen: list[httpx.Request]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    return handler


def test_batches() -> None:
    seen: list[httpx.Request] = []
    result = {"filename": "cat.jpg", **{key: ANSWER[key] for key in ("predictions", "image", "timing_ms")}}
    failure = {"filename": "opened.png", "error": {**PROBLEM, "status": 415}}
    handler = recorded({"results": [result, failure], "model": ANSWER["model"]}, seen)
    answer = stub(handler).predict_batch([CAT, Opened(IMAGE), IMAGE], top_k=2, lang="zh")
    assert isinstance(answer, BatchAnswer)
    good, bad = answer.results
    assert isinstance(good, PredictAnswer)
    assert good.best.label == "one"
    assert bad == Failure("opened.png", 415, "a_code", "A sentence.")
    assert seen[0].url.path == "/predict/batch"
    assert dict(seen[0].url.params) == {"top_k": "2", "lang": "zh"}
    body = seen[0].content
    assert body.count(b'name="files"; filename=') == 3
    for name in (b'"cat.jpg"', b'"opened.png"', b'"image-2"'):
        assert name in body
    assert b"folder" not in body
    with pytest.raises(ValueError, match="no image"):
        stub(handler).predict_batch([])


def test_explanations() -> None:
    seen: list[httpx.Request] = []
    region = {"left": 0, "top": 1, "width": 2, "height": 3}
    answer = {**ANSWER, "class_id": 4, "label": "four", "score": 0.5, "map": [[0.5, 1], [2, 3]], "region": region}
    explained = stub(recorded(answer, seen)).explain(IMAGE, class_id=4)
    assert (explained.map, explained.region.top, explained.label) == (((0.5, 1), (2, 3)), 1, "four")
    assert dict(seen[0].url.params) == {"format": "json", "class_id": "4"}
    png = httpx.Response(200, content=IMAGE, headers={"Content-Type": "image/png"})
    assert stub(recorded(png, seen)).overlay(IMAGE) == IMAGE
    assert dict(seen[1].url.params) == {"format": "overlay"}
    with pytest.raises(UnexpectedAnswer):
        stub(recorded(answer, seen)).overlay(IMAGE)


def test_embeddings() -> None:
    seen: list[httpx.Request] = []
    answer = {**ANSWER, "embedding": [0.6, 0.8], "dimensions": 2, "normalized": True}
    embedded = stub(recorded(answer, seen)).embed(IMAGE, normalize=True)
    assert (embedded.embedding, embedded.normalized) == ((0.6, 0.8), True)
    assert dict(seen[0].url.params) == {"normalize": "true"}


@both_clients
def test_its_calls_are_those_of_the_real_service(kind: Any) -> None:
    key = "a-key-of-a-test-0123456789"
    classifier = FakeClassifier(translations={"zh": ("猫", "狗", "鸟")})
    with served(create_app(Settings(api_keys=Keys([key])), classifier)) as http:
        url = str(http.base_url)
        with kind(url, api_key=key) as client:
            good, bad = client.predict_batch([IMAGE, b"hello"], top_k=1, lang="zh").results
            assert isinstance(good, PredictAnswer)
            assert [one.label for one in good.predictions] == ["猫"]
            assert isinstance(bad, Failure)
            assert (bad.filename, bad.status, bad.code) == ("image-1", 415, "not_an_image")
            explained = client.explain(IMAGE, class_id=1, lang="zh")
            assert (explained.class_id, explained.label, explained.map) == (1, "狗", ((0, 1), (0, 1)))
            assert explained.region.left == pytest.approx(5, abs=5)
            assert explained.region.width == pytest.approx(30, abs=5)
            assert Image.open(io.BytesIO(client.overlay(IMAGE, class_id=2))).size == (40, 30)
            unit, plain = client.embed(IMAGE, normalize=True), client.embed(IMAGE)
            assert (unit.embedding, unit.normalized) == ((1, 0, 0, 0), True)
            assert (plain.embedding, plain.normalized) == ((2, 0, 0, 0), False)
            assert client.labels(lang="zh").classes[1].name == "狗"
            assert client.labels().classes[1].name == "class 1"
            assert client.predict(IMAGE, lang="zh").best.label == "猫"
            with pytest.raises(ServiceRefused, match="invalid_class_id") as caught:
                client.explain(IMAGE, class_id=3)
            assert caught.value.request_id
        with kind(url) as anonymous, pytest.raises(Unauthorized) as refused:
            anonymous.metadata()
        assert refused.value.request_id


# Without other packages


def test_it_imports_nothing_of_the_service() -> None:
    script = (
        "import sys, resnet_service.client\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), [name for name in sys.modules if 'resn' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    for name in ("fastapi", "starlette", "openvino", "torch", "numpy", "PIL", "pydantic", "uvicorn"):
        assert f"'{name}'" not in done.stdout
    assert "resnet_service.client.calls" in done.stdout
    assert "resnet_service.errors" not in done.stdout


def test_it_works_where_only_httpx_is_installed(url: str, tmp_path: Path) -> None:
    """Imports of all other packages are blocked."""
    site = tmp_path / "site"
    site.mkdir()
    for name in ("httpx", "httpcore", "anyio", "h11", "idna", "certifi", "sniffio", "typing_extensions"):
        found = __import__("importlib.util").util.find_spec(name)
        if found is not None and found.origin is not None:
            origin = Path(found.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (site / source.name).symlink_to(source)
    (site / "resnet_service").symlink_to(Path("src/resnet_service").absolute())
    (tmp_path / "image.png").write_bytes(IMAGE)
    script = (
        "import json, sys\nfrom resnet_service.client import Client\n"
        f"with Client({url!r}) as client: print(json.dumps(client.predict('image.png').best.label))\n"
        "try:\n    import fastapi\n    sys.exit('fastapi is there')\nexcept ModuleNotFoundError:\n    pass"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == "class 0"


def test_its_types_are_shipped() -> None:
    assert Path("src/resnet_service/py.typed").exists()
