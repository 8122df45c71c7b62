"""The context of a request: its ID, its metrics, its trace, and its line in the log."""

import logging
import time
from types import FunctionType

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_service.api.client_address import ClientAddresses
from resnet_service.api.problem_details import unexpected
from resnet_service.api.route_templates import RouteTemplates
from resnet_service.observability.logs import printable
from resnet_service.observability.metrics import UNMATCHED, Metrics
from resnet_service.observability.request_context import REQUEST_ID_HEADER, RequestContext, current, request_id
from resnet_service.observability.tracing import Tracer

log = logging.getLogger("resnet_service.access")

# nginx's status for a client that left; for log and metrics only, since there is no response.
CLIENT_LEFT = 499
_LONGEST_PATH = 200
# Suffixes of routes that are requested every few seconds, and therefore logged at debug level; changes of readiness
# have lines of their own.
_QUIET_ROUTES = ("/live", "/ready", "/metrics")


class RequestContextMiddleware:
    """Give each request an ID, count and time it, and log one line when it ends.

    Every response gets ``X-Request-ID``, and ``Server-Timing`` if the request went through stages. This middleware
    answers unhandled exceptions of direct routes and of other middleware.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None = None, clients: ClientAddresses | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracer = tracer
        self._clients = clients or ClientAddresses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        # The connection has set one if it refused the request before this middleware ran.
        ctx = state.get("request_context") or RequestContext(request_id(scope["headers"]))
        state["request_context"] = ctx
        # Not reset at the end: the server logs about this request later, in the same task.
        current.set(ctx)
        self._metrics.begin()
        status = received = sent = 0
        left = broken = ended = False

        def end() -> None:
            nonlocal status, ended
            if ended:
                return
            ended = True
            if left:
                status, ctx.code = ctx.refused or (CLIENT_LEFT, "client_disconnected")
            elif broken:
                ctx.code = "internal_error"
            elif status < 400:
                ctx.code = None
            elif ctx.code is None:
                ctx.code = f"http_{status}"
            self._record(scope, ctx, status, received, sent)

        async def counting_receive() -> Message:
            nonlocal received, left
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
            elif status == 0:
                left = True
            return message

        async def marking_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_headers(ctx)]
            else:
                sent += len(message.get("body", b""))
                if not message.get("more_body", False):
                    # Before the last byte leaves: a client that has its answer finds it counted, even if this process
                    # dies now.
                    end()
            await send(message)

        try:
            await self._app(scope, counting_receive, marking_send)
        except Exception as error:
            broken = True
            if status == 0:
                await (await unexpected(Request(scope), error))(scope, counting_receive, marking_send)
            # The server logs the exception, and closes the connection.
            raise
        finally:
            end()

    def _record(self, scope: Scope, ctx: RequestContext, status: int, received: int, sent: int) -> None:
        route = _template(scope)
        method = scope["method"]
        seconds = time.perf_counter() - ctx.begun
        self._metrics.answered(route, method, status, seconds, ctx.code)
        level = logging.WARNING if status >= 500 else logging.INFO
        if route.endswith(_QUIET_ROUTES):
            level = logging.DEBUG
        fields: dict[str, object] = {}
        if self._tracer is not None and level > logging.DEBUG:
            fields["trace_id"] = self._tracer.record(
                ctx, route=route, method=method, status=status, headers=scope["headers"]
            )
        if not log.isEnabledFor(level):
            return
        fields |= {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 2)}
        # To HEAD, the server sends no body.
        fields |= {"received": received, "sent": sent if method != "HEAD" else 0}
        if (client := self._clients.of(scope)) is not None:
            fields["client"] = client
        if ctx.code is not None:
            fields["code"] = ctx.code
        if route == UNMATCHED:
            fields["path"] = printable(scope["path"], _LONGEST_PATH)
        log.log(level, "request", extra=fields)


def _template(scope: Scope) -> str:
    """Return the path template of the route, so that metrics have one label a route."""
    path = getattr(scope.get("route"), "path", None)
    if isinstance(path, str):
        return path
    # FastAPI sets only its own routes. A Starlette route without parameters matches its own path only.
    if isinstance(scope.get("endpoint"), FunctionType) and not scope.get("path_params"):
        return str(scope["path"])
    if "endpoint" in scope or "app" not in scope:
        return UNMATCHED
    # Answered before routing, or by no route.
    templates: RouteTemplates = scope["app"].state.route_templates
    return templates.of(scope) or UNMATCHED


def _headers(ctx: RequestContext) -> list[tuple[bytes, bytes]]:
    headers = [(REQUEST_ID_HEADER, ctx.request_id.encode("ascii"))]
    if ctx.stages:
        timing = ", ".join(f"{stage};dur={1000 * seconds:.3f}" for stage, seconds in ctx.stages.items())
        headers.append((b"server-timing", timing.encode("ascii")))
    return headers
