"""The metadata in a model file, validated before any weight is used."""

import math
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from resnet_service.errors import InvalidMetadata
from resnet_service.types import Channels, Interpolation, Precision
from resnet_service.validation import describe

# Under this key, ONNX and safetensors files hold the metadata as JSON.
METADATA_KEY = "resnet_service"

# ImageNet's standard values.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_RESIZE_RATIO = 256 / 224

_LARGEST_FLOAT32 = 3.4e38
# Pixels.
MIN_INPUT_SIZE, MAX_INPUT_SIZE = 8, 4096
MAX_CLASSES = 100_000


def _without_controls(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("control characters and line breaks are not allowed")
    return text


# Texts in files are untrusted, and go onto terminals and into logs.
Text = Annotated[str, AfterValidator(_without_controls)]
ClassName = Annotated[Text, Field(min_length=1, max_length=200)]


def _square_side(value: Any) -> Any:
    """Reduce the common forms ``(S, S)`` and ``(3, S, S)`` to ``S``; leave others to validation."""
    if isinstance(value, (list, tuple)):
        sides = tuple(value[1:]) if len(value) == 3 and value[0] == 3 else tuple(value)
        if len(sides) == 2 and sides[0] == sides[1]:
            return sides[0]
        raise ValueError(f"input_size must be square, not {list(value)!r}")
    return value


def _check_std(std: Channels) -> Channels:
    if min(std) <= 0:
        raise ValueError("each value must be above zero: pixels are divided by it")
    return std


def _check_count(num_classes: int) -> int:
    if num_classes == 1:
        raise ValueError(
            "a network of one output cannot be served, since softmax of one number is always 1. Write it as two "
            "classes: resnet-service convert --binary FILE OUTPUT.safetensors"
        )
    return num_classes


# The types of the preprocessing in ``ModelMetadata``.
ResizeSize = Annotated[int, Field(ge=MIN_INPUT_SIZE, le=MAX_INPUT_SIZE)]
InputSize = Annotated[ResizeSize, BeforeValidator(_square_side)]
Std = Annotated[Channels, AfterValidator(_check_std)]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelSetReference(_Record):
    """The label set of a model's classes: its ``name``, and the SHA-256 of its file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    sha256: Sha256


class Provenance(_Record):
    """The origin of the weights, and the accuracy that their publisher states."""

    source: Text = Field(max_length=200)
    url: Text | None = Field(None, max_length=2000)
    sha256: Sha256 | None = Field(None, description="SHA-256 of the downloaded file")
    licence: Text | None = Field(None, max_length=200)
    published_accuracy: float | None = Field(None, ge=0, le=100, description="top-1 in percent, as published")


class EvaluationRecord(_Record):
    """The result of an evaluation and its data set; written by ``evaluate --record`` only."""

    dataset: Text = Field(max_length=200)
    sha256: Sha256 = Field(description="of the data set's images and classes")
    pictures: int = Field(ge=1)
    top1: float = Field(ge=0, le=100, description="in percent")
    top5: float = Field(ge=0, le=100, description="in percent")
    calibration_error: float = Field(ge=0, le=1, description="expected calibration error over 15 bins")


class Calibration(_Record):
    """The images from which quantization learned the range of each activation."""

    dataset: Text = Field(max_length=200)
    sha256: Sha256 = Field(description="of all images and classes of the data set, held-out images included")
    pictures: int = Field(ge=1, description="images used to calibrate")


class Agreement(_Record):
    """An exported model's answers compared with its checkpoint's, on images not used for calibration."""

    pictures: int = Field(ge=1)
    top1_agreement: float = Field(ge=0, le=100, description="same first answer, in percent of the images")
    top1_loss: float | None = Field(
        None, ge=-100, le=100, description="percentage points of top-1 accuracy lost; null for images without labels"
    )
    max_logit_difference: float = Field(ge=0)


class Outputs(_Record):
    """A network's outputs besides logits, as far as its architecture has them.

    ``embedding`` is the length of the last linear layer's input. ``feature_map`` is the shape (channels, height, width)
    of the activations that global average pooling reduces to that input, for networks that end in it.
    """

    embedding: int | None = Field(None, ge=1)
    feature_map: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None

    @model_validator(mode="after")
    def _averages_to_the_embedding(self) -> Self:
        if self.feature_map is not None and self.feature_map[0] != self.embedding:
            raise ValueError("the embedding must have an entry for each channel of the feature map")
        return self


class Packing(_Record):
    """The export of a model: its checkpoint, its precision, and the measured difference in answers."""

    checkpoint_sha256: Sha256
    graph_sha256: Sha256 = Field(description="of the serialised ONNX graph; checked before the graph is parsed")
    precision: Precision
    calibration: Calibration | None = None
    agreement: Agreement
    outputs: Outputs | None = Field(None, description="outputs besides logits; unknown for files exported before 0.3")


class ModelMetadata(_Record):
    """All that inference needs besides the weights.

    ``input_size`` is the side of the network's square input, in pixels; an image's shorter side is first resized to
    ``resize_size``. ``mean`` and ``std`` are per channel (red, green, blue), for values in 0 ... 1.
    """

    format_version: Literal[1] = 1
    arch: str = Field(pattern=r"^(timm/)?[a-z0-9_.]{1,100}$")
    num_classes: Annotated[int, AfterValidator(_check_count)] = Field(ge=1, le=MAX_CLASSES)
    input_size: InputSize
    resize_size: ResizeSize
    interpolation: Interpolation = "bilinear"
    mean: Channels = IMAGENET_MEAN
    std: Std = IMAGENET_STD
    labels: LabelSetReference | None = None
    provenance: Provenance | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()
    packing: Packing | None = Field(None, description="of exported models only")
    library_versions: dict[Text, Text] = Field(default_factory=dict)
    class_names: tuple[ClassName, ...] | None = Field(
        None, description="the names in the label set, in its order, so that the model can be served without its file"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_resize(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "resize_size" not in data and "input_size" in data:
            side = _square_side(data["input_size"])
            if isinstance(side, int):
                return {**data, "resize_size": math.floor(side * IMAGENET_RESIZE_RATIO)}
        return data

    @model_validator(mode="after")
    def _normalises_in_float32(self) -> Self:
        for mean, std in zip(self.mean, self.std, strict=True):
            if max(abs(mean), std, abs(mean / std), 1 / (255 * std)) > _LARGEST_FLOAT32:
                raise ValueError(f"pixels normalised with the mean {mean:g} and the std {std:g} exceed float32")
        return self

    @model_validator(mode="after")
    def _each_class_has_a_name(self) -> Self:
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"there are {len(self.class_names)} class names for {self.num_classes} classes")
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize_size < self.input_size:
            raise ValueError(f"resize_size {self.resize_size} is smaller than input_size {self.input_size}")
        return self

    def with_evaluation(self, record: EvaluationRecord) -> Self:
        """Return a copy with ``record``, which replaces an older one of the same data set."""
        others = (old for old in self.evaluations if old.dataset != record.dataset)
        return self.model_copy(update={"evaluations": (*others, record)})

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str) -> Self:
        """Validate ``data``; raise ``InvalidMetadata`` with ``where`` and each wrong key."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise InvalidMetadata(f"{where} has invalid metadata: {describe(error)}") from error
