"""``/metadata`` and ``/labels``: the served model and its classes."""

from fastapi import APIRouter

from resnet_service import __version__
from resnet_service.api.dependencies import StartedService
from resnet_service.api.localization import RequestedLocale
from resnet_service.api.openapi import document, responses
from resnet_service.api.schemas import LabelsResponse, Limits, MetadataResponse, Model
from resnet_service.errors import NotReady, UnsupportedLanguage
from resnet_service.models.label_translations import ORIGINAL

router = APIRouter(tags=[document.MODEL])


@router.get(
    "/metadata",
    summary="Describe the served model",
    responses={
        **responses.success("The metadata in the model file, and how the model is served.", "metadata"),
        **responses.failures(NotReady),
    },
)
async def metadata(service: StartedService) -> MetadataResponse:
    """Return the model's name and version, the metadata in its file, and how it is served.

    ```console
    $ curl http://localhost:8080/metadata
    ```
    """
    model, settings = service.classifier.model, service.settings
    return MetadataResponse(
        model=Model.of(model),
        runtime=model.runtime,
        precision=model.precision,
        service_version=__version__,
        outputs=model.outputs,
        serving_since=service.serving_since,
        languages=[ORIGINAL, *model.translations],
        class_summary=model.class_summary,
        limits=Limits(max_body_bytes=settings.max_body_bytes, max_pixels=settings.max_pixels),
        # The names are in the answer of /labels.
        metadata=model.metadata.model_copy(update={"class_names": None}),
    )


@router.get(
    "/labels",
    summary="List the classes",
    responses={
        **responses.success("The classes, in the order of the model's outputs.", "labels"),
        **responses.failures(UnsupportedLanguage, NotReady),
    },
)
async def labels(service: StartedService, locale: RequestedLocale) -> LabelsResponse:
    """Return all classes of the model, in the order of its outputs.

    ```console
    $ curl http://localhost:8080/labels
    $ curl "http://localhost:8080/labels?lang=zh"
    ```
    """
    classifier = service.classifier
    label_set = classifier.model.labels
    names = locale.names(classifier)
    if names is None:
        return LabelsResponse(name=label_set.name, classes=list(label_set.classes))
    classes = [label.model_copy(update={"name": name}) for label, name in zip(label_set.classes, names, strict=True)]
    return LabelsResponse(name=label_set.name, classes=classes)
