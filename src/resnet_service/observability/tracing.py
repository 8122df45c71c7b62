"""Optional OpenTelemetry spans of requests; the only module that imports OpenTelemetry."""

import os
import threading
import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from resnet_service import __version__
from resnet_service.errors import TracingUnavailable, install_hint
from resnet_service.observability.request_context import RequestContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_EXPORTERS = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_SERVER_ERROR = 500
_CLOSE_SECONDS = 5.0


class Tracer:
    """Creates the spans of a request after its response: one for the request, and a child for each stage.

    They use the times in the request's context, so that tracing adds nothing to the work on an image.

    Args:
        provider: Samples the spans and hands them to exporters.

    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import propagate, trace

        self._provider = provider
        self._tracer = provider.get_tracer("resnet_service", __version__)
        self._trace = trace
        self._extract = propagate.extract

    def record(
        self, ctx: RequestContext, *, route: str, method: str, status: int, headers: list[tuple[bytes, bytes]]
    ) -> str:
        """Create the spans of a request that ends now; return its trace ID, 32 hexadecimal digits.

        Args:
            ctx: The request.
            route: Template of its route.
            method: Its HTTP method.
            status: Status of its response.
            headers: Its headers, as in ASGI; may have the caller's ``traceparent``.

        """
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        end = time.time_ns()
        begin = end - round((time.perf_counter() - ctx.begun) * 1e9)
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "resnet_service.request_id": ctx.request_id,
        }
        if ctx.code is not None:
            attributes["error.type"] = ctx.code
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=begin,
        )
        if status >= _SERVER_ERROR:
            span.set_status(self._trace.StatusCode.ERROR)
        within = self._trace.set_span_in_context(span)
        for stage, seconds in ctx.stages.items():
            after = begin + round(seconds * 1e9)
            self._tracer.start_span(stage, context=within, start_time=begin).end(end_time=after)
            begin = after
        span.end(end_time=end)
        return self._trace.format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Export the remaining spans, in at most 5 s: the collector may be unreachable."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


# Headers that propagators read: W3C's, and the older ones that OTEL_PROPAGATORS can select.
_CONTEXT = frozenset(
    {
        b"traceparent",
        b"tracestate",
        b"baggage",
        b"b3",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-sampled",
        b"uber-trace-id",
    }
)


def open_tracer() -> Tracer:
    """Return a tracer configured by the standard variables ``OTEL_*``: exporter, endpoint, sampler, service name.

    Raises:
        TracingUnavailable: The packages are not installed, or the exporter is not.

    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise TracingUnavailable(
            f"Tracing needs the package {error.name}, which is not installed. {install_hint('otel')}"
        ) from error
    # The specification gives the variable precedence over this name.
    own = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "resnet-service"}
    provider = TracerProvider(resource=Resource.create({**own, "service.version": __version__}), shutdown_on_exit=False)
    for name in filter(None, (part.strip() for part in os.environ.get(_EXPORTERS, "otlp").split(","))):
        if name != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name)()))
    return Tracer(provider)


def _exporter(name: str) -> Any:
    """Return the exporter class for a name that the specification defines."""
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    entry = _PROTOCOLS.get(protocol or "http/protobuf", str(protocol)) if name == "otlp" else name
    for entry_point in entry_points(group="opentelemetry_traces_exporter", name=entry):
        return entry_point.load()
    raise TracingUnavailable(
        f"No exporter {entry!r} is installed ({_EXPORTERS}={name}). The extra otel has OTLP over HTTP; install the "
        "package of any other exporter."
    )
