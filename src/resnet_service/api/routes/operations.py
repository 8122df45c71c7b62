"""``/health/live``, ``/health/ready`` and ``/metrics``: for orchestrators, load balancers and Prometheus."""

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from resnet_service.api.dependencies import StartedService
from resnet_service.api.openapi import document, responses
from resnet_service.api.schemas import Health
from resnet_service.errors import NotReady

METRICS_PATH = "/metrics"

router = APIRouter(tags=[document.OPERATE])
probes = APIRouter(tags=[document.OPERATE])


@probes.get(
    "/health/live",
    summary="Check liveness",
    responses={**responses.success("The service is alive.", "ok"), **responses.failures()},
)
async def live() -> Health:
    """Return 200 while the event loop runs. If there is no response, restart the process.

    ```console
    $ curl http://localhost:8080/health/live
    ```
    """
    return Health(status="ok")


@probes.get(
    "/health/ready",
    summary="Check readiness",
    responses={**responses.success("Requests may be sent.", "ok"), **responses.failures(NotReady)},
)
async def ready(service: StartedService) -> Health:
    """Return 200 when the model is loaded and has classified a trial image.

    Before that, the response is 503. It is 503 again during shutdown, and after an inference failed until a trial image
    has been classified.

    ```console
    $ curl http://localhost:8080/health/ready
    ```
    """
    service.check_ready()
    return Health(status="ok")


@router.get(
    METRICS_PATH,
    summary="Get metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={
        **responses.success(
            "The metrics; in OpenMetrics format if `Accept` asks for it.", "metrics", media_type="text/plain"
        ),
        **responses.failures(NotReady),
    },
)
async def metrics(request: Request, service: StartedService) -> Response:
    """Return the service's metrics in Prometheus text format, or in OpenMetrics format.

    ```console
    $ curl http://localhost:8080/metrics
    ```
    """
    text, media_type = await service.exposition.render(request.headers.get("accept", ""))
    return Response(text, media_type=media_type)
