"""The servers that `benchmarks.overhead` compares: this service with a classifier that costs nothing, and references.

python -m benchmarks.overhead_servers NAME PORT
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from resnet_service.api.app import create_app
from resnet_service.api_keys import Keys
from resnet_service.imaging.decode import ImageInfo
from resnet_service.inference.fake import FakeClassifier
from resnet_service.inference.ranking import RankedClass
from resnet_service.inference.results import Classification, Timing
from resnet_service.observability.logs import writing
from resnet_service.server.server import Server
from resnet_service.settings import Settings
from resnet_service.system.memory import gc_frozen, limit_gc, limit_heap

KEY = "benchmark-key-0123456789abcdef"
# The references answer as much as this service does.
_ANSWER: dict[str, Any] = {
    "predictions": [{"class_id": index, "label": f"class {index}", "score": 0.2} for index in range(5)],
    "model": {"name": "resnet18", "arch": "resnet18", "version": "0123456789ab"},
    "image": {"width": 500, "height": 375, "format": "JPEG"},
    "timing_ms": {"decode": 1.0, "preprocess": 1.0, "inference": 1.0, "total": 3.0},
}


class FreeClassifier(FakeClassifier):
    """Answers the same for every image, without looking at it."""

    def __init__(self) -> None:
        super().__init__(classes=10)
        classes = self.model.labels.classes[:5]
        self._answer = Classification(
            [RankedClass(class_id, label.name, 0.2) for class_id, label in enumerate(classes)],
            ImageInfo("JPEG", 500, 375),
            Timing(1.0, 1.0, 1.0, 3.0),
        )

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        """Return the same answer."""
        return self._answer


def service(port: int, app: ASGIApp | None = None) -> None:
    """Serve this service with all its protections, as ``resnet-service serve`` does, and its log to ``/dev/null``.

    Args:
        port: The port.
        app: Answers the requests instead of this service's application, whose server remains.

    """
    settings = Settings(
        port=port,
        api_keys=Keys([KEY]),
        cors_origins=("https://example.org",),
        log_format="json",
    )
    with writing("json", "info", os.open(os.devnull, os.O_WRONLY)):
        limit_heap()
        limit_gc()
        with gc_frozen():
            own = create_app(settings, classifier=FreeClassifier())
        server = Server(own, settings)
        if app is not None:
            server.config.app = _replaced(own, app)
        server.run()


def _replaced(own: ASGIApp, app: ASGIApp) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await (own if scope["type"] == "lifespan" else app)(scope, receive, send)

    return call


def _classify(data: bytes) -> dict[str, Any]:
    return _ANSWER


def form() -> ASGIApp:
    """Return the handler of FastAPI's tutorial for a form."""
    app = FastAPI()

    @app.post("/predict")
    async def predict(file: UploadFile) -> dict[str, Any]:
        return await run_in_threadpool(_classify, await file.read())

    return app


def raw() -> ASGIApp:
    """Return FastAPI's shortest handler for a raw body."""
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(_classify, await request.body())

    return app


def asgi() -> ASGIApp:
    """Return an application without any framework, which reads the body and answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"{}"})

    return app


REFERENCES: dict[str, Callable[[], ASGIApp]] = {"form": form, "raw": raw, "asgi": asgi}
H11 = "-h11"  # ends the name of a reference that uvicorn serves with h11 instead of its default, httptools


def main(arguments: Sequence[str] = ()) -> None:
    """Serve until a signal ends the process."""
    name, port = arguments or sys.argv[1:]
    if name == "service":
        service(int(port))
    elif name == "server":
        service(int(port), asgi())
    else:
        config = uvicorn.Config(
            REFERENCES[name.removesuffix(H11)](),
            port=int(port),
            loop="uvloop",
            http="h11" if name.endswith(H11) else "auto",
            access_log=False,
            lifespan="off",
            log_level="warning",
        )
        uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
