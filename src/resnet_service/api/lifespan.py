"""Start and end of the application: load the model, start the threads, close both."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from fastapi import FastAPI

from resnet_service.api.dependencies import LifespanState, Service
from resnet_service.api.reload import Reloader
from resnet_service.api_keys import KeyRing
from resnet_service.errors import ServiceError
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.executor import InferenceExecutor
from resnet_service.inference.loader import ModelLoader, open_classifier
from resnet_service.models.label_translations import ORIGINAL
from resnet_service.observability.logs import count_lost_lines
from resnet_service.observability.metrics import Metrics
from resnet_service.observability.tracing import Tracer
from resnet_service.settings import Settings
from resnet_service.system.budget import SharedBudget
from resnet_service.system.memory import trim_heap
from resnet_service.system.shared_state import SharedState

log = logging.getLogger("resnet_service")


def lifespan_of(
    settings: Settings,
    *,
    classifier: ImageClassifier | None,
    loader: ModelLoader | None,
    key_ring: KeyRing | None,
    metrics: Metrics,
    tracer: Tracer | None,
    shared: SharedState,
) -> Callable[[FastAPI], AbstractAsyncContextManager[LifespanState]]:
    """Return the lifespan hook of an application; arguments as for ``create_app``."""

    # One for all models that are loaded: the old one and the new one are both in use during a reload.
    budget = SharedBudget(settings.max_decoding_bytes) if loader is None else loader.budget

    def open_model() -> ImageClassifier:
        if classifier is None:
            return open_classifier(settings, budget)
        classifier.warm_up()
        return classifier

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        try:
            async with _running(settings, open_model, loader, key_ring, metrics, shared) as service:
                app.state.service = service
                yield {"service": service}
        except ServiceError as error:
            app.state.startup_error = error
            raise
        finally:
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    return lifespan


@asynccontextmanager
async def _running(
    settings: Settings,
    open_model: Callable[[], ImageClassifier],
    loader: ModelLoader | None,
    key_ring: KeyRing | None,
    metrics: Metrics,
    shared: SharedState,
) -> AsyncIterator[Service]:
    """Load the model and start the threads; at the end, stop the threads, the checks and the reloads."""
    workers = settings.worker_count
    classifier = await (asyncio.to_thread(open_model) if loader is None else loader.result())
    # Prefetch threads add no slots: they only keep the next image ready.
    threads, slots = workers + classifier.model.prefetch, workers * (1 + settings.queue)
    executor = InferenceExecutor(threads, slots)
    try:

        async def install(opened: ImageClassifier) -> None:
            await executor.run_on_each(opened.warm_thread)
            service.serve(opened)
            _announce(opened, workers, metrics)
            await asyncio.to_thread(trim_heap)

        # Every thread infers once before the first request.
        await executor.run_on_each(classifier.warm_thread)
        trim_heap()
        reloader = Reloader(open_model, install, partial(metrics.reloaded, "model"))
        service = Service(settings, classifier, executor, reloader, key_ring, metrics, shared)
        count_lost_lines(metrics.log_lines_lost)
        metrics.set_gauges(
            running=lambda: executor.running,
            waiting=lambda: executor.waiting,
            ready=lambda: service.ready,
        )
        _announce(classifier, workers, metrics)
        if key_ring is not None:
            log.info("API keys are required; accepted keys: %d", len(key_ring.keys))
        # This frame lives as long as the service, but the model must be freed when a reload replaces it.
        del classifier
        watching = asyncio.create_task(service.health.watch_threads())
        yield service
        watching.cancel()
        service.health.close()
        service.reloader.close()
    finally:
        # A thread may not come back, and meanwhile the event loop tells the supervisor that this process lives.
        await asyncio.to_thread(executor.close)


def _announce(classifier: ImageClassifier, workers: int, metrics: Metrics) -> None:
    """Show in metrics and log which model is served, where its weights come from, and which classes it knows."""
    model = classifier.model
    metrics.set_model(
        name=model.name, arch=model.arch, version=model.version, runtime=model.runtime, precision=model.precision
    )
    provenance = model.metadata.provenance
    log.info(
        "Serving %s %s: %s from %s; %s runtime in %s, workers: %d; %s",
        model.name,
        model.version,
        model.arch,
        provenance.source if provenance else "an unknown source",
        model.runtime,
        model.precision.upper(),
        workers,
        model.class_summary[ORIGINAL],
    )
