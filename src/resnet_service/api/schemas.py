"""What goes over the wire, with examples that the documentation shows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from resnet_service.classifier import Classification, ImageClassifier
from resnet_service.labels import ClassLabel
from resnet_service.metadata import ModelMetadata, Precision
from resnet_service.ranking import RankedClass
from resnet_service.translations import Language


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


class Image(BaseModel):
    """What was sent: the format by its bytes, the size in pixels as displayed (EXIF orientation applied)."""

    format: str = Field(examples=["JPEG"])
    width: int = Field(examples=[500])
    height: int = Field(examples=[375])


class Timing(BaseModel):
    """Milliseconds spent in each stage."""

    decode: float = Field(examples=[1.6])
    preprocess: float = Field(examples=[1.8])
    inference: float = Field(examples=[18.6])
    total: float = Field(description="The stages' sum; what the network and the queue cost is not in it.")


class PredictResponse(BaseModel):
    """The most probable classes of one picture, best first."""

    predictions: list[Prediction]
    model: Model
    image: Image
    timing_ms: Timing

    @classmethod
    def of(cls, answer: Classification, classifier: ImageClassifier, names: Sequence[str] | None = None) -> Self:
        """Put a classifier's answer into its form on the wire; ``names`` instead of the label set's own, if given."""
        return cls(
            predictions=[Prediction.of(ranked, names) for ranked in answer.predictions],
            model=Model(**classifier.model._asdict()),
            image=Image(format=answer.format, width=answer.width, height=answer.height),
            timing_ms=Timing(**{stage: round(spent, 3) for stage, spent in answer.timing_ms._asdict().items()}),
        )


class Limits(BaseModel):
    """What one request may carry."""

    max_body_bytes: int = Field(description="Bytes of the body.", examples=[10485760])
    max_pixels: int = Field(description="Pixels of the picture.", examples=[50000000])


class MetadataResponse(BaseModel):
    """What is being served: identity, and all that the model file says about itself."""

    model: Model
    runtime: str = Field(examples=["openvino"])
    precision: Precision = Field(description="What the network is computed in.", examples=["int8"])
    service_version: str
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
