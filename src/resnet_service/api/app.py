"""The application: ``create_app`` puts routes, middleware, error handlers and documentation together."""

from fastapi.routing import APIRoute

from resnet_service import __version__
from resnet_service.api import problem_details, static
from resnet_service.api.admission import InferenceRoute
from resnet_service.api.application import Application
from resnet_service.api.lifespan import lifespan_of
from resnet_service.api.middleware.body_limits import BodyBudget
from resnet_service.api.middleware.direct_routes import DirectRoute
from resnet_service.api.middleware.stack import middleware
from resnet_service.api.openapi import document
from resnet_service.api.route_templates import RouteTemplates
from resnet_service.api.routes import embed, explain, huggingface, model, open_inference, operations, predict
from resnet_service.api_keys import KeyRing
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.loader import ModelLoader
from resnet_service.observability.metrics import Metrics
from resnet_service.observability.tracing import Tracer, open_tracer
from resnet_service.settings import Settings, load_settings
from resnet_service.system.budget import SharedBudget
from resnet_service.system.shared_state import SharedState

# Orchestrators and load balancers, which have no key, ask these.
_PROBES = (operations.probes, open_inference.probes)
_HEALTH_PATHS = frozenset(route.path for router in _PROBES for route in router.routes if isinstance(route, APIRoute))
# Answered also if no connection is left for other requests.
PROBE_PATHS = _HEALTH_PATHS | {operations.METRICS_PATH}
ROUTERS = (
    predict.router,
    explain.router,
    embed.router,
    model.router,
    operations.router,
    open_inference.router,
    open_inference.inference,
    huggingface.router,
    *_PROBES,
)


def create_app(
    settings: Settings | None = None,
    classifier: ImageClassifier | None = None,
    loader: ModelLoader | None = None,
    tracer: Tracer | None = None,
    shared: SharedState | None = None,
) -> Application:
    """Make the application; the model is loaded when the server starts it.

    Args:
        settings: By default, read from the environment.
        classifier: Served instead of the settings' model; tests pass their own.
        loader: The settings' model, where loading it has already begun; it has the memory for decoding.
        tracer: Records each request; by default there is one if the settings ask for tracing.
        shared: What this process shares with the others of the service; by default, it is the only one.

    Raises:
        InvalidSettings: The file of API keys cannot be used.
        TracingUnavailable: The settings ask for tracing, and the packages for it are not installed.

    """
    settings = settings or load_settings()
    key_ring = _key_ring(settings)
    if tracer is None and settings.tracing:
        tracer = open_tracer()
    shared = shared or SharedState.local()
    metrics = Metrics(shared)
    bodies = BodyBudget(
        settings.max_receiving_bytes,
        SharedBudget(settings.max_receiving_bytes, shared.bodies, shared.index) if shared.serving > 1 else None,
    )
    open_paths = _open_paths(settings)

    app = Application(
        title="resnet-service",
        version=__version__,
        description=document.DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=document.TAGS,
        servers=document.SERVERS,
        root_path_in_servers=False,
        generate_unique_id_function=document.operation_id,
        openapi_url=document.PATH,
        # FastAPI's documentation pages load their viewer from another host; `static` serves ours from the package.
        docs_url=None,
        redoc_url=None,
        # To redirect `/labels/` to `/labels`, Starlette would build a URL from the client's Host header.
        redirect_slashes=False,
        lifespan=lifespan_of(
            settings,
            classifier=classifier,
            loader=loader,
            key_ring=key_ring,
            metrics=metrics,
            tracer=tracer,
            shared=shared,
        ),
        outer=middleware(
            settings,
            body_budget=bodies,
            max_bytes_by_path={predict.BATCH_PATH: settings.max_batch_bytes},
            key_ring=key_ring,
            open_paths=open_paths,
            metrics=metrics,
            tracer=tracer,
            direct_routes=_direct_routes(),
        ),
    )
    app.state.settings = settings
    app.state.startup_error = None
    app.state.body_budget = bodies
    for router in ROUTERS:
        app.include_router(router)
    static.install(app)
    included = (route for router in ROUTERS for route in router.routes)
    app.state.route_templates = RouteTemplates([*included, *app.router.routes])
    problem_details.install(app)
    document.install(app, None if key_ring is None else open_paths)
    return app


def _direct_routes() -> dict[tuple[str, str], DirectRoute]:
    """Return the inference routes without parameters in their paths, by method and path."""
    return {
        (method, route.path): DirectRoute(route, route.get_route_handler())
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, InferenceRoute) and not route.param_convertors
        for method in route.methods or ()
    }


def _key_ring(settings: Settings) -> KeyRing | None:
    if settings.api_keys is None and settings.api_keys_file is None:
        return None
    return KeyRing(settings.api_keys, settings.api_keys_file)


def _open_paths(settings: Settings) -> frozenset[str]:
    """Return the paths that need no key: probes, static files, the OpenAPI document, and metrics if so set.

    The page sends the visitor's key with its own requests. The OpenAPI document has nothing that is not public.
    """
    metrics = {operations.METRICS_PATH} if settings.metrics_open else set()
    return static.PATHS | {document.PATH} | _HEALTH_PATHS | metrics
