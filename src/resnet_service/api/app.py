"""The application: lifespan and wiring only."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from resnet_service import __version__
from resnet_service.api import problem_details as problems
from resnet_service.api import reference
from resnet_service.api import static as pages
from resnet_service.api.dependencies import LifespanState, Service
from resnet_service.api.middleware.api_key import APIKeyMiddleware
from resnet_service.api.middleware.body_limits import BodyBudget, BodyLimitsMiddleware
from resnet_service.api.middleware.early_response import EarlyResponseMiddleware
from resnet_service.api.middleware.request_context import RequestContextMiddleware
from resnet_service.api.openapi import document
from resnet_service.api.reload import Reloader
from resnet_service.api.routes import huggingface as hub
from resnet_service.api.routes import open_inference as v2
from resnet_service.api.routes import predict as routes
from resnet_service.api_keys import KeyRing
from resnet_service.errors import ServiceError
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.executor import InferenceExecutor
from resnet_service.inference.loader import ModelLoader, open_classifier, worker_count
from resnet_service.observability.metrics import Metrics
from resnet_service.observability.tracing import Tracer, open_tracer
from resnet_service.settings import Settings, load_settings
from resnet_service.system.memory import trim_heap

log = logging.getLogger("resnet_service")


def create_app(
    settings: Settings | None = None,
    classifier: ImageClassifier | None = None,
    opening: ModelLoader | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """Make the application; the model is loaded when the server starts it.

    Args:
        settings: By default, read from the environment.
        classifier: Served instead of loading the settings' model; tests hand in their own.
        opening: The settings' model, where loading it has begun.
        tracer: Told of each request; by default there is one if the settings ask for tracing.

    Raises:
        InvalidSettings: The file of API keys cannot be used.
        TracingUnavailable: The settings ask for tracing, and what it needs is not installed.

    """
    chosen = settings or load_settings()
    ring = _key_ring(chosen)
    traced = open_tracer() if tracer is None and chosen.tracing else tracer
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        workers = worker_count(chosen)

        def open_() -> ImageClassifier:
            if classifier is None:
                return open_classifier(chosen)
            classifier.warm_up()
            return classifier

        async def install(opened: ImageClassifier) -> None:
            await executor.run_on_each(opened.warm_thread)
            service.serve(opened)
            _show(opened, metrics)
            log.info(_start_line(opened, workers))
            await asyncio.to_thread(trim_heap)

        try:
            loaded = await (asyncio.to_thread(open_) if opening is None else opening.result())
            # Threads ahead of the workers are no more places: they have the next image ready.
            threads, slots = workers + loaded.model.prefetch, workers * (1 + chosen.queue)
            with closing(InferenceExecutor(threads, slots)) as executor:
                # Every thread answers once before any client waits for it.
                await executor.run_on_each(loaded.warm_thread)
                trim_heap()
                reloader = Reloader(open_, install)
                app.state.service = service = Service(chosen, loaded, executor, reloader, ring, metrics)
                metrics.watch(
                    running=lambda: executor.running,
                    waiting=lambda: executor.waiting,
                    ready=lambda: service.health.ready,
                )
                _show(loaded, metrics)
                log.info(_start_line(loaded, workers))
                if ring is not None:
                    log.info("API keys are needed; accepted now: %d", len(ring.keys))
                del (
                    loaded
                )  # this frame lives as long as the service, and the model should go when another takes its place
                yield {"service": service}
                service.health.close()
                service.reloader.close()
        except ServiceError as error:
            app.state.startup_error = error
            raise
        finally:
            if traced is not None:
                await asyncio.to_thread(traced.close)

    app = FastAPI(
        title="resnet-service",
        version=__version__,
        description=document.DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=document.TAGS,
        generate_unique_id_function=document.operation_id,
        lifespan=lifespan,
        # FastAPI's documentation pages load their viewer from elsewhere; ours, in `reference`, has it in the package.
        openapi_url=reference.DOCUMENT,
        docs_url=None,
        redoc_url=None,
        # To redirect `/labels/` to `/labels`, Starlette would build a URL from whatever the client calls the host.
        redirect_slashes=False,
    )
    app.state.settings = chosen
    app.state.startup_error = None
    app.state.held_bytes = held = BodyBudget(chosen.max_receiving_bytes)
    for router in (routes.health, routes.router, routes.inference, v2.router, v2.health, v2.inference, hub.inference):
        app.include_router(router)
    pages.install(app)
    reference.install(app)
    problems.install(app)
    # The last one added meets a request first.
    app.add_middleware(
        BodyLimitsMiddleware,
        max_bytes=chosen.max_body_bytes,
        held=held,
        seconds=chosen.body_seconds,
        min_rate=chosen.min_body_rate,
        by_path={routes.BATCH: chosen.max_batch_bytes},
    )
    open_paths = _open_paths(chosen)
    document.describe(app, None if ring is None else open_paths)
    if ring is not None:
        app.add_middleware(APIKeyMiddleware, ring=ring, open_paths=open_paths)
    app.add_middleware(EarlyResponseMiddleware, max_bytes=chosen.max_body_bytes)
    if chosen.cors_origins:
        # Outside of the keys: browsers ask in advance, without a key, whether they may send one.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Retry-After", "Server-Timing", "X-Request-ID"],
        )
    app.add_middleware(RequestContextMiddleware, metrics=metrics, tracer=traced)
    return app


def _key_ring(settings: Settings) -> KeyRing | None:
    if settings.api_keys is None and settings.api_keys_file is None:
        return None
    return KeyRing(settings.api_keys, settings.api_keys_file)


def _open_paths(settings: Settings) -> frozenset[str]:
    """Return what needs no key: probes, the page, whose own requests bring one, the reference, and metrics if open.

    The OpenAPI document says nothing that this repository does not.
    """
    probes = {route.path for route in (*routes.health.routes, *v2.health.routes) if isinstance(route, APIRoute)}
    return (
        pages.PATHS
        | reference.PATHS
        | {reference.DOCUMENT}
        | probes
        | ({"/metrics"} if settings.metrics_open else set())
    )


def _show(classifier: ImageClassifier, metrics: Metrics) -> None:
    model = classifier.model
    metrics.serve(
        name=model.name, arch=model.arch, version=model.version, runtime=model.runtime, precision=model.precision
    )


def _start_line(classifier: ImageClassifier, workers: int) -> str:
    """Say what is being served, and whose weights they are."""
    model = classifier.model
    provenance = model.metadata.provenance
    source = provenance.source if provenance else "a source that the file does not name"
    return (
        f"Serving {model.name} {model.version}: {model.arch} from {source}; {len(model.labels)} classes, "
        f"{model.runtime} runtime in {model.precision.upper()}, {workers} at once"
    )
