"""Metrics over a real socket, and their documentation and dashboard."""

import asyncio
import dataclasses
import itertools
import json
import re
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import APIRouter, Request
from prometheus_client.parser import text_string_to_metric_families

from resnet_service.api.admission import Admitted, InferenceRoute
from resnet_service.api.app import create_app
from resnet_service.errors import BrokenImage
from resnet_service.inference.fake import FakeClassifier
from resnet_service.inference.results import Classification, Timing
from resnet_service.observability.metrics import BUCKETS, OTHER_METHOD, STAGES, Metrics, metrics_table
from resnet_service.observability.request_context import current
from resnet_service.settings import Settings
from resnet_service.system.memory_limit import memory_limit
from resnet_service.system.shared_state import GAUGES, SharedState
from tests.support.gated import gated
from tests.support.images import encoded, noise
from tests.support.servers import REPOSITORY, served
from tests.support.waiting import until
from tests.support.wire import connected, head, read_to_end

IMAGE = encoded(noise(40, 30), "JPEG")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with served(create_app(Settings(), FakeClassifier())) as client:
        yield client


def figures(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = client.get("/metrics").raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (sample.name.removeprefix("resnet_service_"), frozenset(sample.labels.items())): sample.value
        for sample in samples
    }


def figure(client: httpx.Client, metric: str, /, **labels: str) -> float:
    return figures(client).get((metric, frozenset(labels.items())), 0.0)


def test_requests_are_counted_by_template_method_and_status(client: httpx.Client) -> None:
    for _ in range(3):
        client.post("/predict?top_k=1", content=IMAGE)
    client.post("/predict", content=b"no image")
    client.get("/predict")
    client.get("/")
    assert figure(client, "requests_total", route="/predict", method="POST", status="200") == 3
    assert figure(client, "requests_total", route="/predict", method="POST", status="415") == 1
    assert figure(client, "requests_total", route="/predict", method="GET", status="405") == 1
    # A request ends when its file is closed, which is after its last byte is sent.
    until(lambda: figure(client, "requests_total", route="/", method="GET", status="200") == 1)
    assert figure(client, "failures_total", reason="not_an_image") == 1
    assert figure(client, "failures_total", reason="method_not_allowed") == 1
    assert figure(client, "request_duration_seconds_count", route="/predict") == 5
    assert figure(client, "requests_in_flight") == 1  # this request


def test_clients_cannot_create_labels(client: httpx.Client) -> None:
    figures(client)  # counted after its response
    before = len(figures(client))
    for number in range(30):
        assert client.get(f"/nothing/{number}?secret={number}").status_code == 404
    for method in ("PROPFIND", "MKCOL", "LINK", "UNLINK", "PURGE"):
        client.request(method, "/predict")
        client.request(method, "/elsewhere")
    after = figures(client)
    assert not any("nothing" in value or "PROPFIND" in value for _, labels in after for _, value in labels)
    assert after["requests_total", frozenset({("route", "unmatched"), ("method", "GET"), ("status", "404")})] == 30
    # A few counters, and for each of the two routes a histogram.
    assert len(after) - before <= 8 + 2 * (len(BUCKETS) + 3)


def test_other_methods_are_one_label_and_not_remembered() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.begin()
        metrics.answered("/predict", f"M{number}", 405, 0.001, None)
    labels = {
        sample.labels["method"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "method" in sample.labels
    }
    assert labels == {OTHER_METHOD}
    assert not metrics._answers


def test_stages_are_timed_and_told(client: httpx.Client) -> None:
    answer = client.post("/predict", content=IMAGE)
    told = {stage: float(spent) for stage, spent in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])}
    assert list(told) == ["receive", "queue", "decode", "inference"]  # the fake crops nothing
    assert told["decode"] == pytest.approx(answer.json()["timing_ms"]["decode"], abs=0.002)
    for stage in told:
        assert figure(client, "stage_duration_seconds_count", stage=stage) == 1
        assert figure(client, "stage_duration_seconds_sum", stage=stage) == pytest.approx(told[stage] / 1000, abs=1e-5)
    assert "server-timing" not in client.get("/labels").headers


def test_receiving_and_waiting_are_timed_apart() -> None:
    with gated(queue=2) as server:
        first = server.fill(1)
        until(lambda: server.executor.running == 1)
        second = server.ask()
        until(lambda: server.executor.waiting == 1)
        assert figure(server.client, "inferences_running") == 1
        assert figure(server.client, "inferences_waiting") == 1
        assert figure(server.client, "requests_in_flight") == 3
        threading.Event().wait(0.25)  # the service may receive the first part later than it was sent
        server.gate.set()
        first[0].result(10)
        waited = re.search(r"queue;dur=([\d.]+)", second.result(10).headers["server-timing"])
        assert waited is not None
        assert float(waited[1]) >= 200
        assert figure(server.client, "stage_duration_seconds_sum", stage="receive") < 0.2


def test_a_slow_body_is_time_of_receiving(client: httpx.Client) -> None:
    def slowly() -> Iterator[bytes]:
        yield IMAGE[:100]
        threading.Event().wait(0.5)
        yield IMAGE[100:]

    told = client.post("/predict", content=slowly()).headers["server-timing"]
    assert (
        float(re.findall(r"receive;dur=([\d.]+)", told)[0]) >= 450
    )  # the service may start its clock later than the test


def test_an_image_that_fails_has_waited_all_the_same(client: httpx.Client) -> None:
    assert client.post("/predict", content=IMAGE[:300]).headers["server-timing"].startswith("receive;dur=")
    assert figure(client, "stage_duration_seconds_count", stage="queue") == 1
    assert figure(client, "stage_duration_seconds_count", stage="decode") == 0


class Answer(NamedTuple):
    timing_ms: Timing | None


ONE = Answer(Timing(1, 2, 3, 6))


@pytest.mark.parametrize(
    ("result", "images"),
    [(ONE, 1), ([ONE, ONE], 2), ((ONE, BrokenImage("one of them"), ONE), 2), (Answer(None), 0), ([], 0), ("text", 0)],
    ids=["one", "list", "tuple with an error", "untimed", "empty", "other"],
)
def test_any_route_that_infers_is_timed_without_doing_anything(result: Any, images: int) -> None:
    router = APIRouter(route_class=InferenceRoute)

    @router.post("/other")
    async def other(request: Request, admitted: Admitted) -> None:
        await request.body()
        await admitted.run(lambda: result)

    app = create_app(Settings(), FakeClassifier())
    app.include_router(router)
    with served(app) as client:
        told = client.post("/other", content=b"x").headers["server-timing"]
        assert ("decode;dur=" in told) == (images > 0)
        assert figure(client, "requests_total", route="/other", method="POST", status="200") == 1
        for number, stage in enumerate(("decode", "preprocess", "inference"), 1):
            assert figure(client, "stage_duration_seconds_count", stage=stage) == images
            assert figure(client, "stage_duration_seconds_sum", stage=stage) == pytest.approx(images * number / 1000)
        assert figure(client, "stage_duration_seconds_count", stage="queue") == 1


def test_rejected_requests_are_counted() -> None:
    with gated(queue=0) as server:
        server.fill(1)
        for _ in range(3):
            assert server.client.post("/predict", content=IMAGE).status_code == 429
        assert figure(server.client, "rejected_total") == 3
        assert figure(server.client, "failures_total", reason="overloaded") == 3


def test_who_leaves_is_no_failure_of_the_service() -> None:
    with gated() as server:
        for body in (IMAGE[:20], IMAGE):  # with an incomplete body, and while the request waits
            with connected(str(server.client.base_url)) as leaver:
                leaver.sendall(head(Content_Length=len(IMAGE)) + body)
                until(lambda: server.executor.waiting + server.executor.running == 1)
            until(lambda: figure(server.client, "requests_in_flight") == 1)
        server.gate.set()  # not earlier: with an immediate answer, the client would not have disconnected first
        assert figure(server.client, "failures_total", reason="client_disconnected") == 2
        assert figure(server.client, "requests_total", route="/predict", method="POST", status="499") == 2
        assert not any(
            ("status", "500") in labels or ("status", "400") in labels for _, labels in figures(server.client)
        )


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", HTTPStatus.BAD_REQUEST, "malformed_request"),
        (head("GET", "/", X=20_000 * "x"), HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large"),
        (head(Transfer_Encoding="chunked") + b"nonsense\r\n", HTTPStatus.BAD_REQUEST, "malformed_request"),
    ],
    ids=["no HTTP", "a large head", "a malformed body"],
)
def test_what_no_application_sees_is_counted_and_named(
    client: httpx.Client, sent: bytes, status: HTTPStatus, code: str
) -> None:
    with connected(str(client.base_url)) as connection:
        connection.sendall(sent)
        answer = read_to_end(connection)
    assert f" {status} ".encode() in answer
    assert re.search(rb"x-request-id: [0-9a-f]{32}\r\n", answer)
    until(lambda: figure(client, "failures_total", reason=code) == 1)
    counted = {labels: value for (name, labels), value in figures(client).items() if name == "requests_total"}
    assert sum(value for labels, value in counted.items() if ("status", str(status.value)) in labels) == 1
    assert figure(client, "failures_total", reason="client_disconnected") == 0


def test_readiness_and_process_and_model(client: httpx.Client) -> None:
    assert figure(client, "ready") == 1
    assert figure(client, "process_resident_memory_bytes") > 1e6
    labels = {"name": "fake", "arch": "resnet18", "version": "000000000000", "runtime": "fake", "precision": "fp32"}
    assert figure(client, "model_info", **labels) == 1
    assert figure(client, "memory_limit_bytes") == memory_limit()


def test_a_reload_shows_the_new_model_and_not_the_old() -> None:
    async def reload() -> str:
        classifier = FakeClassifier()
        app = create_app(Settings(), classifier)
        async with app.router.lifespan_context(app):
            service = app.state.service
            classifier.model = dataclasses.replace(classifier.model, name="new", version="111111111111")
            service.reloader.request()
            async with asyncio.timeout(10):
                while service.reloader.busy:
                    await asyncio.sleep(0.01)
            return str(service.metrics.exposition("")[0].decode())

    shown = asyncio.run(reload())
    assert 'resnet_service_reloads_total{outcome="success",what="model"} 1.0' in shown
    assert 'resnet_service_reloads_total{outcome="failure",what="model"} 0.0' in shown
    assert 'name="new"' in shown
    assert 'name="fake"' not in shown


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [("*/*", "text/plain"), ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text")],
)
def test_both_formats_are_spoken(client: httpx.Client, accept: str, media_type: str) -> None:
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(media_type)
    assert answer.text.endswith("# EOF\n") == ("openmetrics" in media_type)
    assert "_created" not in answer.text


def test_buckets_are_geometric() -> None:
    assert all(after / before == pytest.approx(1.5, rel=0.01) for before, after in itertools.pairwise(BUCKETS))
    assert BUCKETS[0] < 0.001
    assert BUCKETS[-1] > 30


def names() -> dict[str, set[str]]:
    """Return every name that a query may use, with its labels."""
    found: dict[str, set[str]] = {}
    for row in Metrics().rows:
        for suffix in ("_bucket", "_sum", "_count") if row.kind == "histogram" else ("",):
            found[row.name + suffix] = {*row.labels, *({"le"} if suffix == "_bucket" else ())}
    return found


def test_rows_are_what_is_exposed() -> None:
    metrics = Metrics()
    metrics.set_model(name="n", arch="a", version="v", runtime="r", precision="p")
    metrics.begin()
    metrics.answered("/predict", "POST", 500, 0.1, "internal_error")
    metrics.decoder_failed("OSError")
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert {sample.name for sample in samples} == set(names())
    for sample in samples:
        assert set(sample.labels) == names()[sample.name]


def test_the_document_is_the_metrics() -> None:
    assert metrics_table() in (REPOSITORY / "docs" / "metrics.md").read_text()


def expressions() -> list[str]:
    dashboard = json.loads((REPOSITORY / "deploy" / "grafana" / "resnet-service.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    known = names()
    asked = set()
    for expression in expressions():
        used = re.findall(r"\b((?:resnet_service|process)_\w+)\{([^}]*)\}", expression)
        assert used, expression
        grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
        for name, matchers in used:
            assert name in known, expression
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) | grouped
            assert labels <= known[name] | {"job", "instance"}, expression
            asked.add(name)
    ours = {name for name in known if name.startswith("resnet_service_") and not name.endswith(("_sum", "_count"))}
    assert ours <= asked, "the dashboard leaves some out"


def test_alerts_ask_for_metrics_that_there_are() -> None:
    alerts = (REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text()
    asked = set(re.findall(r"\b(?:resnet_service|process)_\w+", alerts))
    assert asked
    assert asked <= set(names())


def test_every_stage_is_one_of_the_timings() -> None:
    assert set(STAGES) == {"receive", "queue", *Timing._fields} - {"total"}


@pytest.mark.parametrize("given", ["a", "0b29c4f0-7d0c-4c4e-9a52-d24f2b3b1a5a", "Root=1-67891233-abcdef", "x" * 128])
def test_the_clients_own_id_is_taken(client: httpx.Client, given: str) -> None:
    assert client.get("/labels", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;b", "<script>", "a\x1b[31m", "ä", '"', "a,b"])
def test_an_id_that_is_not_one_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/labels", headers={b"X-Request-ID": given.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_two_ids_are_none(client: httpx.Client) -> None:
    answer = client.get("/labels", headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/", b"", 200),
        ("HEAD", "/", b"", 200),
        ("GET", "/health/live", b"", 200),
        ("GET", "/metrics", b"", 200),
        ("POST", "/predict", IMAGE, 200),
        ("GET", "/nothing", b"", 404),
        ("GET", "/predict", b"", 405),
        ("POST", "/predict", bytes(2000), 413),
        ("POST", "/predict", b"text", 415),
        ("POST", "/predict?top_k=0", IMAGE[:900], 422),
    ],
)
def test_every_answer_has_the_id(method: str, path: str, content: bytes, status: int) -> None:
    with served(create_app(Settings(max_body_bytes=1999), FakeClassifier())) as client:
        answer = client.request(method, path, content=content, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "mine")


def test_429_has_the_id_though_its_body_was_not_read() -> None:
    with gated(queue=0) as server:
        server.fill(1)
        answer = server.client.post("/predict", content=bytes(100_000), headers={"X-Request-ID": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (429, "mine")


def test_500_has_the_id_and_is_counted_and_its_traceback_has_the_id(caplog: pytest.LogCaptureFixture) -> None:
    from resnet_service.observability.logs import formatter

    caplog.handler.setFormatter(formatter("json"))
    with served(create_app(Settings(), FakeClassifier(failure=RuntimeError("x")))) as client:
        answer = client.post("/predict", content=IMAGE, headers={"X-Request-ID": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
        assert answer.json()["code"] == "internal_error"
        assert figure(client, "requests_total", route="/predict", method="POST", status="500") == 1
        assert figure(client, "failures_total", reason="internal_error") == 1
    (said,) = [record for record in caplog.records if record.exc_info]
    assert said.name == "uvicorn.error.http"
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    assert [line["request_id"] for line in lines if "exception" in line] == ["mine"]


def test_the_thread_that_infers_knows_the_request() -> None:
    ctx: list[str | None] = []

    class Asking(FakeClassifier):
        def classify(self, data: bytes, top_k: int | None = None) -> Classification:
            request = current.get()
            ctx.append(None if request is None else request.request_id)
            return super().classify(data, top_k)

    with served(create_app(Settings(), Asking())) as client:
        for number in range(3):
            client.post("/predict", content=IMAGE, headers={"X-Request-ID": f"mine-{number}"}).raise_for_status()
    assert [name for name in ctx if name is not None] == ["mine-0", "mine-1", "mine-2"]


def test_the_first_columns_and_no_others_are_gauges() -> None:
    shared = SharedState.local()
    metrics = Metrics(shared)
    kinds = {row.name: row.kind for row in metrics.rows}
    of_processes = {column: kinds.get(f"resnet_service_{key[0]}") for key, column in shared.keys}
    assert [column for column, kind in of_processes.items() if kind == "gauge"] == list(range(GAUGES))
