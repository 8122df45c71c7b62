"""Spans of requests, into memory, and from the real process to a collector."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.observability.tracing import Tracer
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import REPOSITORY, START_SECONDS, cli, served, server_process
from tests.support.waiting import until

IMAGE = encoded(noise(40, 30), "JPEG")
MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@contextmanager
def traced(classifier: FakeClassifier) -> Iterator[tuple[httpx.Client, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with served(create_app(Settings(), classifier, tracer=Tracer(provider))) as client:
        yield client, exporter


def named(exporter: InMemorySpanExporter, *awaited: str) -> dict[str, ReadableSpan]:
    """Return the spans by name; they end after the response."""
    until(lambda: {span.name for span in exporter.get_finished_spans()} >= set(awaited))
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_is_a_span_with_its_stages_in_it() -> None:
    with traced(FakeClassifier(seconds=0.01)) as (client, exporter):
        parent = f"00-{TRACE}-b7ad6b7169203331-01"
        client.post("/predict", content=IMAGE, headers={"traceparent": parent, "X-Request-ID": "mine"})
        spans = named(exporter, "POST /predict")
    request = spans.pop("POST /predict")
    assert request.kind is SpanKind.SERVER
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:x}" == "b7ad6b7169203331"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "resnet_service.request_id": "mine",
    }
    assert list(spans) == ["receive", "queue", "decode", "inference"]
    last = request.start_time
    assert last is not None
    assert request.end_time is not None
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert span.start_time == last
        assert span.end_time is not None
        assert last <= span.end_time <= request.end_time
        last = span.end_time
    assert spans["inference"].end_time - spans["inference"].start_time >= 10_000_000  # type: ignore[operator]


def test_failures_are_marked_by_whose_they_are() -> None:
    with traced(FakeClassifier(failure=RuntimeError("a secret"))) as (client, exporter):
        assert client.post("/predict", content=IMAGE).status_code == 500
        assert client.get("/nothing?a=secret").status_code == 404
        spans = named(exporter, "POST /predict", "GET unmatched")
    failed, missed = spans["POST /predict"], spans["GET unmatched"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "internal_error"
    assert missed.status.status_code is StatusCode.UNSET
    assert "secret" not in "".join(span.to_json() for span in spans.values())


def test_probes_are_not_traced() -> None:
    with traced(FakeClassifier()) as (client, exporter):
        for path in ("/health/live", "/health/ready", "/metrics"):
            client.get(path)
        assert not exporter.get_finished_spans()


def test_switched_off_nothing_of_it_is_imported() -> None:
    # FastAPI depends on the API package, which does nothing by itself.
    code = (
        "import sys; from resnet_service.api.app import create_app; "
        "from resnet_service.inference.fake import FakeClassifier; "
        "from resnet_service.settings import Settings; create_app(Settings(), FakeClassifier()); "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=START_SECONDS, check=True
    )
    assert done.stdout == "[]\n"


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_where_it_is_not_installed_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.sdk'] = None\n")
    path = f"{tmp_path}:{REPOSITORY / 'src'}"
    arguments = "serve", "--tracing", "--port", "0", "--checkpoint", MODEL
    assert "the extra otel:" in one_line(cli(*arguments, PYTHONPATH=path))


def test_an_exporter_that_is_not_there_is_one_line() -> None:
    arguments = "serve", "--tracing", "--port", "0", "--checkpoint", MODEL
    assert "No exporter 'zipkin' is installed" in one_line(cli(*arguments, OTEL_TRACES_EXPORTER="zipkin"))


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    received: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.path.encode() + self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", received
        server.shutdown()
        thread.join(10)


def test_the_real_process_sends_spans_where_the_standard_variables_say(collector: tuple[str, list[bytes]]) -> None:
    url, received = collector
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "pets", "RESNET_SERVICE_TRACING": "true"}
    with server_process("--checkpoint", MODEL, "--log-format", "json", **environment) as server:
        parent = f"00-{TRACE}-b7ad6b7169203331-01"
        httpx.post(f"{server.url}/predict", content=IMAGE, headers={"traceparent": parent}).raise_for_status()
        server.stop()
    sent = b"".join(received)
    assert sent.startswith(b"/v1/traces")
    for name in (b"POST /predict", b"preprocess", b"pets", bytes.fromhex(TRACE)):
        assert name in sent
    assert f'"trace_id": "{TRACE}"' in server.log
