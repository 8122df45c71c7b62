"""The application: lifespan and wiring only."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from resnet_service import __version__
from resnet_service.api import pages, problems, routes
from resnet_service.api.early import EarlyAnswer
from resnet_service.api.limits import BodyLimit
from resnet_service.api.reload import Reloader
from resnet_service.api.state import LifespanState, Service
from resnet_service.classifier import Classifier, ImageClassifier
from resnet_service.cpus import available_cpus
from resnet_service.default_model import choose_model
from resnet_service.errors import ServiceError
from resnet_service.executor import InferenceExecutor
from resnet_service.memory import release_freed
from resnet_service.settings import Settings, load_settings

log = logging.getLogger("resnet_service")


def create_app(settings: Settings | None = None, classifier: ImageClassifier | None = None) -> FastAPI:
    """Make the application; the model is loaded when the server starts it.

    Args:
        settings: By default, read from the environment.
        classifier: Served instead of loading the settings' model; tests hand in their own.

    """
    chosen = settings or load_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        workers = chosen.workers or available_cpus()
        executor = InferenceExecutor(workers, waiting=workers * chosen.queue)

        def open_again() -> ImageClassifier:
            opened = _open(chosen, workers) if classifier is None else classifier
            opened.warm_up()
            return opened

        def swap(opened: ImageClassifier) -> None:
            service.serve(opened)
            log.info(_start_line(opened, workers))

        try:
            loaded = await executor.run(_open, chosen, workers) if classifier is None else classifier
            # Every thread answers once before any client waits for it.
            await asyncio.gather(*(executor.run(loaded.warm_up) for _ in range(workers)))
            release_freed()
            app.state.service = service = Service(chosen, loaded, executor, Reloader(open_again, swap))
            log.info(_start_line(loaded, workers))
            yield {"service": service}
            service.health.close()
            service.reloader.close()
        except ServiceError as error:
            app.state.startup_error = error
            raise
        finally:
            executor.close()

    app = FastAPI(
        title="resnet-service",
        version=__version__,
        description="Classifies pictures with the one model that it was started with.",
        lifespan=lifespan,
        # FastAPI's documentation pages load their viewer from elsewhere, which a service without network cannot.
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = chosen
    app.state.startup_error = None
    app.include_router(routes.router)
    app.include_router(routes.inference)
    pages.install(app)
    problems.install(app)
    # The last one added meets a request first.
    app.add_middleware(
        BodyLimit, max_bytes=chosen.max_body_bytes, seconds=chosen.body_seconds, min_rate=chosen.min_body_rate
    )
    app.add_middleware(EarlyAnswer, max_bytes=chosen.max_body_bytes)
    return app


def _open(settings: Settings, workers: int) -> Classifier:
    return Classifier.open(
        choose_model(settings.checkpoint),
        runtime=settings.runtime,
        arch=settings.arch,
        label_file=settings.labels,
        workers=workers,
        threads=settings.threads,
        max_pixels=settings.max_pixels,
        decoding=settings.decode,
    )


def _start_line(classifier: ImageClassifier, workers: int) -> str:
    """Say what is being served, and whose weights they are."""
    name, arch, version = classifier.model
    provenance = classifier.metadata.provenance
    source = provenance.source if provenance else "a source that the file does not name"
    return (
        f"Serving {name} {version}: {arch} from {source}; {len(classifier.labels)} classes, "
        f"{classifier.runtime_name} runtime in {classifier.precision.upper()}, {workers} at once"
    )
