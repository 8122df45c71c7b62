"""The JSON of requests and responses, with examples for the documentation."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from resnet_service.imaging.decode import ImageInfo
from resnet_service.imaging.formats import ACCEPTED_FORMATS
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
        """Convert one class; ``names`` replace the label set's names, if given."""
        class_id, label, score = ranked
        return cls(class_id=class_id, label=label if names is None else names[class_id], score=score)


class Model(BaseModel):
    """The model that answered."""

    name: str = Field(description="The model file's name without its suffix.", examples=["resnet18-imagenet1k"])
    arch: str = Field(examples=["resnet18"])
    version: str = Field(description="The first digits of the model file's SHA-256.", examples=["5c106cde386e"])

    @classmethod
    def of(cls, model: ServedModel) -> Self:
        """Convert a model's identity."""
        return cls(name=model.name, arch=model.arch, version=model.version)


class Image(BaseModel):
    """The image's format, detected from the bytes, and its size in pixels as displayed (EXIF orientation applied)."""

    format: str = Field(examples=["JPEG"])
    width: int = Field(examples=[500])
    height: int = Field(examples=[375])

    @classmethod
    def of(cls, info: ImageInfo) -> Self:
        """Convert an image's format and size."""
        return cls(**info._asdict())


class Timing(BaseModel):
    """Milliseconds that each stage took."""

    decode: float = Field(examples=[1.6])
    preprocess: float = Field(examples=[1.8])
    inference: float = Field(examples=[18.6])
    total: float = Field(description="Sum of the stages, without transfer and queue.")

    @classmethod
    def of(cls, spent: results.Timing) -> Self:
        """Convert timings, rounded to microseconds."""
        return cls(**{stage: round(milliseconds, 3) for stage, milliseconds in spent._asdict().items()})


class PredictResponse(BaseModel):
    """The most probable classes of one image, best first."""

    predictions: list[Prediction]
    model: Model
    image: Image
    timing_ms: Timing

    @classmethod
    def of(cls, answer: Classification, classifier: ImageClassifier, names: Sequence[str] | None = None) -> Self:
        """Convert a result; ``names`` replace the label set's names, if given."""
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
    """A class activation map: which regions of the image support a class."""

    class_id: int = Field(examples=[281])
    label: str = Field(examples=["tabby"])
    score: float = Field(ge=0, le=1, description="Softmax over all classes of the model.", examples=[0.71])
    map: list[list[float]] = Field(
        description="Rows from top to bottom, each from left to right, over `region`. The unit is logits: the mean is "
        "what the image adds to the class's logit; a value below zero counts against the class.",
        examples=[[[0.4, 3.1], [1.2, 9.8]]],
    )
    region: Region = Field(description="The part of the image that the network saw.")
    image: Image
    model: Model
    timing_ms: Timing

    @classmethod
    def of(cls, answer: results.Explanation, classifier: ImageClassifier, names: Sequence[str] | None = None) -> Self:
        """Convert a result; ``names`` replace the label set's names, if given."""
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
    """The embedding of an image: the input of the network's last layer."""

    embedding: list[float] = Field(examples=[[0.0, 1.48, 0.32]])
    dimensions: int = Field(description="Length of the embedding.", examples=[512])
    normalized: bool = Field(description="Whether the embedding was scaled to length 1.")
    image: Image
    model: Model
    timing_ms: Timing

    @classmethod
    def of(cls, answer: results.Embedding, classifier: ImageClassifier, *, normalized: bool) -> Self:
        """Convert a result."""
        return cls(
            embedding=answer.vector.tolist(),
            dimensions=len(answer.vector),
            normalized=normalized,
            image=Image.of(answer.image),
            model=Model.of(classifier.model),
            timing_ms=Timing.of(answer.timing_ms),
        )


class Limits(BaseModel):
    """The limits of one request."""

    max_body_bytes: int = Field(description="Bytes in the body.", examples=[10485760])
    max_pixels: int = Field(description="Pixels in the image.", examples=[50000000])


class MetadataResponse(BaseModel):
    """The served model, the metadata in its file, and how it is served."""

    model: Model
    runtime: str = Field(examples=["openvino"])
    precision: Precision = Field(description="The precision of inference.", examples=["int8"])
    service_version: str
    outputs: Outputs = Field(
        description="The outputs besides scores: `/embed` needs an embedding, `/explain` a feature map."
    )
    serving_since: datetime = Field(
        description="Time at which this model began to serve, RFC 3339 in UTC.", examples=["2026-01-31T09:30:00Z"]
    )
    languages: list[Language] = Field(description="The languages of the class names.", examples=[["en", "zh"]])
    class_summary: dict[Language, str] = Field(
        description="One line for people about the classes, in each of these languages: how many there are, and the "
        "names of all or of the first. `/labels` lists all.",
        examples=[{"en": "2 classes: cat, dog", "zh": "2 个类别：猫、狗"}],
    )
    limits: Limits
    metadata: ModelMetadata


class LabelsResponse(BaseModel):
    """The model's classes in the order of its outputs."""

    name: str = Field(examples=["imagenet1k"])
    classes: list[ClassLabel]


class Health(BaseModel):
    """``ok``. In every other case the response is a problem document."""

    status: str = Field(examples=["ok"])


class Problem(BaseModel):
    """An error in the shape of RFC 9457; ``code`` is stable, ``detail`` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unsupported Media Type",
                    "status": 415,
                    "code": "not_an_image",
                    "detail": f"This is a PDF document; the accepted formats are {', '.join(ACCEPTED_FORMATS)}.",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str


class ErrorResponse(BaseModel):
    """An error in the shape of the Open Inference Protocol and of Hugging Face's API."""

    error: str = Field(examples=["This model is not served. The served model is resnet18-imagenet1k."])


class BatchedPrediction(BaseModel):
    """The result for one of several images."""

    filename: str = Field(description="The file's name in the form.", examples=["cat.jpg"])
    predictions: list[Prediction]
    image: Image
    timing_ms: Timing


class BatchedFailure(BaseModel):
    """The error of one of several images."""

    filename: str = Field(description="The file's name in the form.", examples=["notes.txt"])
    error: Problem


class BatchResponse(BaseModel):
    """A result for each image, in the order of the request."""

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
        """Convert the results and problems of ``files``; ``names`` replace the label set's names, if given."""
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
