"""What goes over the wire, with examples that the documentation shows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from resnet_service.imaging.decode import ImageInfo
from resnet_service.inference import results
from resnet_service.inference.base import ImageClassifier, ServedModel
from resnet_service.inference.ranking import RankedClass
from resnet_service.inference.results import Classification
from resnet_service.models.label_translations import Language
from resnet_service.models.labels import ClassLabel
from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.types import Precision


class Prediction(BaseModel):
    """One class and its probability."""

    class_id: int = Field(description="Index of the network's output.", examples=[281])
    label: str = Field(examples=["tabby"])
    score: float = Field(ge=0, le=1, description="Softmax over all classes of the model.", examples=[0.71])

    @classmethod
    def of(cls, ranked: RankedClass, names: Sequence[str] | None) -> Self:
        """Put one class into its form on the wire, called as ``names`` has it, if given."""
        class_id, label, score = ranked
        return cls(class_id=class_id, label=label if names is None else names[class_id], score=score)


class Model(BaseModel):
    """Which model answered."""

    name: str = Field(description="The model file's name.", examples=["resnet18-imagenet1k"])
    arch: str = Field(examples=["resnet18"])
    version: str = Field(description="From the model file's SHA-256.", examples=["5c106cde386e"])

    @classmethod
    def of(cls, model: ServedModel) -> Self:
        """Name the model that answered."""
        return cls(name=model.name, arch=model.arch, version=model.version)


class Image(BaseModel):
    """What was sent: the format by its bytes, the size in pixels as displayed (EXIF orientation applied)."""

    format: str = Field(examples=["JPEG"])
    width: int = Field(examples=[500])
    height: int = Field(examples=[375])

    @classmethod
    def of(cls, info: ImageInfo) -> Self:
        """Describe the image that was sent."""
        return cls(**info._asdict())


class Timing(BaseModel):
    """Milliseconds spent in each stage."""

    decode: float = Field(examples=[1.6])
    preprocess: float = Field(examples=[1.8])
    inference: float = Field(examples=[18.6])
    total: float = Field(description="The stages' sum; what the network and the queue cost is not in it.")

    @classmethod
    def of(cls, spent: results.Timing) -> Self:
        """Round to microseconds."""
        return cls(**{stage: round(milliseconds, 3) for stage, milliseconds in spent._asdict().items()})


class PredictResponse(BaseModel):
    """The most probable classes of one image, best first."""

    predictions: list[Prediction]
    model: Model
    image: Image
    timing_ms: Timing

    @classmethod
    def of(cls, answer: Classification, classifier: ImageClassifier, names: Sequence[str] | None = None) -> Self:
        """Put a classifier's answer into its form on the wire; ``names`` instead of the label set's own, if given."""
        return cls(
            predictions=[Prediction.of(ranked, names) for ranked in answer.predictions],
            model=Model.of(classifier.model),
            image=Image.of(answer.image),
            timing_ms=Timing.of(answer.timing_ms),
        )


class Region(BaseModel):
    """A rectangle in the image as displayed, in its pixels."""

    left: float = Field(examples=[91.7])
    top: float = Field(examples=[18.75])
    width: float = Field(examples=[328.1])
    height: float = Field(examples=[328.1])


class ExplainResponse(BaseModel):
    """A class activation map: which places of the image speak for a class."""

    class_id: int = Field(examples=[281])
    label: str = Field(examples=["tabby"])
    score: float = Field(ge=0, le=1, description="Softmax over all classes of the model.", examples=[0.71])
    map: list[list[float]] = Field(
        description="Rows from top to bottom, each from left to right, over `region`. In units of logits: the mean is "
        "what the image adds to the class's logit; below zero, a place speaks against the class.",
        examples=[[[0.4, 3.1], [1.2, 9.8]]],
    )
    region: Region = Field(description="The part of the image that the network saw.")
    image: Image
    model: Model
    timing_ms: Timing

    @classmethod
    def of(cls, answer: results.Explanation, classifier: ImageClassifier, names: Sequence[str] | None = None) -> Self:
        """Put a classifier's answer into its form on the wire; ``names`` instead of the label set's own, if given."""
        return cls(
            class_id=answer.class_id,
            label=answer.label if names is None else names[answer.class_id],
            score=answer.score,
            map=answer.values.tolist(),
            region=Region(**answer.region._asdict()),
            image=Image.of(answer.image),
            model=Model.of(classifier.model),
            timing_ms=Timing.of(answer.timing_ms),
        )


class EmbedResponse(BaseModel):
    """An image as a vector: what the network's last layer takes."""

    embedding: list[float] = Field(examples=[[0.0, 1.48, 0.32]])
    dimensions: int = Field(description="The vector's length.", examples=[512])
    normalized: bool = Field(description="Whether it was scaled to length 1.")
    image: Image
    model: Model
    timing_ms: Timing

    @classmethod
    def of(cls, answer: results.Embedding, classifier: ImageClassifier, *, normalized: bool) -> Self:
        """Put a classifier's answer into its form on the wire."""
        return cls(
            embedding=answer.vector.tolist(),
            dimensions=len(answer.vector),
            normalized=normalized,
            image=Image.of(answer.image),
            model=Model.of(classifier.model),
            timing_ms=Timing.of(answer.timing_ms),
        )


class Limits(BaseModel):
    """What one request may carry."""

    max_body_bytes: int = Field(description="Bytes of the body.", examples=[10485760])
    max_pixels: int = Field(description="Pixels of the image.", examples=[50000000])


class MetadataResponse(BaseModel):
    """What is being served: identity, and all that the model file says about itself."""

    model: Model
    runtime: str = Field(examples=["openvino"])
    precision: Precision = Field(description="What the network is computed in.", examples=["int8"])
    service_version: str
    outputs: Outputs = Field(
        description="What it gives besides scores: `/embed` needs an embedding, `/explain` a feature map."
    )
    serving_since: datetime = Field(
        description="When this model began to serve, RFC 3339 in UTC.", examples=["2026-01-31T09:30:00Z"]
    )
    languages: list[Language] = Field(description="In which its classes have names.", examples=[["en", "zh"]])
    limits: Limits
    metadata: ModelMetadata


class LabelsResponse(BaseModel):
    """The model's classes in the order of its outputs."""

    name: str = Field(examples=["imagenet1k"])
    classes: list[ClassLabel]


class Health(BaseModel):
    """``ok``, or the request is answered with a problem instead."""

    status: str = Field(examples=["ok"])


class Problem(BaseModel):
    """An error as RFC 9457 has it; ``code`` is stable, ``detail`` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unsupported Media Type",
                    "status": 415,
                    "code": "not_an_image",
                    "detail": "This is a PDF document; accepted are JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF.",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a body that FastAPI does not parse, with its definitions in their places.

    FastAPI collects the definitions of those that it parses; references to others would lead nowhere.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolve(definitions[part["$ref"].rpartition("/")[2]])
            return {key: resolve(value) for key, value in part.items()}
        return [resolve(value) for value in part] if isinstance(part, list) else part

    resolved: dict[str, Any] = resolve(schema)
    return resolved


class BatchedPrediction(BaseModel):
    """The answer for one of several images."""

    filename: str = Field(description="As the form has it.", examples=["cat.jpg"])
    predictions: list[Prediction]
    image: Image
    timing_ms: Timing


class BatchedFailure(BaseModel):
    """What was wrong with one of several images."""

    filename: str = Field(description="As the form has it.", examples=["notes.txt"])
    error: Problem


class BatchResponse(BaseModel):
    """An answer for each image, in the order in which they were sent."""

    results: list[BatchedPrediction | BatchedFailure]
    model: Model

    @classmethod
    def of(
        cls,
        files: Sequence[str],
        answers: Sequence[Classification | Problem],
        classifier: ImageClassifier,
        names: Sequence[str] | None = None,
    ) -> Self:
        """Put answers and problems, one for each file, into their form on the wire; ``names`` as for one answer."""
        return cls(
            results=[_batched(file, answer, names) for file, answer in zip(files, answers, strict=True)],
            model=Model.of(classifier.model),
        )


def _batched(
    file: str, answer: Classification | Problem, names: Sequence[str] | None
) -> BatchedPrediction | BatchedFailure:
    if isinstance(answer, Problem):
        return BatchedFailure(filename=file, error=answer)
    return BatchedPrediction(
        filename=file,
        predictions=[Prediction.of(ranked, names) for ranked in answer.predictions],
        image=Image.of(answer.image),
        timing_ms=Timing.of(answer.timing_ms),
    )
