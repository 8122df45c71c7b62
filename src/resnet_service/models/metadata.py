"""What a model file says about itself, checked before a single weight is used."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from resnet_service.errors import InvalidMetadata
from resnet_service.types import Interpolation, Precision
from resnet_service.validation import describe

FORMAT_VERSION = 1

# The standard values of ImageNet training; a checkpoint with only the four classic keys is read with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_RESIZE_RATIO = 256 / 224

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Channels = tuple[float, float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelSetReference(_Record):
    """Which label set the classes of a model mean: ``name`` of the set and SHA-256 of its file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    sha256: Sha256


class Provenance(_Record):
    """Where weights came from, and what their publisher claims for them."""

    source: str = Field(max_length=200)
    url: str | None = Field(None, max_length=2000)
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file as it was fetched")
    licence: str | None = Field(None, max_length=200)
    published_accuracy: float | None = Field(None, ge=0, le=100, description="top-1 in percent, as published")


class EvaluationRecord(_Record):
    """What an evaluation measured, and on which images: never written by hand, only by ``evaluate --record``."""

    dataset: str = Field(max_length=200)
    sha256: Sha256 = Field(description="of the data set's images and classes")
    pictures: int = Field(ge=1)
    top1: float = Field(ge=0, le=100, description="in percent")
    top5: float = Field(ge=0, le=100, description="in percent")
    calibration_error: float = Field(ge=0, le=1, description="expected calibration error over 15 bins")


class Calibration(_Record):
    """The images that showed which range each activation has, as quantization needs to know."""

    dataset: str = Field(max_length=200)
    sha256: Sha256 = Field(description="of all the images and classes it was given, those held out included")
    pictures: int = Field(ge=1, description="of them, used to calibrate")


class Agreement(_Record):
    """How an exported model answers compared with its checkpoint, on images that calibration has not seen."""

    pictures: int = Field(ge=1)
    top1_agreement: float = Field(ge=0, le=100, description="same first answer, in percent of the images")
    top1_loss: float | None = Field(None, ge=-100, le=100, description="points of accuracy lost, where labelled")
    max_logit_difference: float = Field(ge=0)


class Outputs(_Record):
    """What a network gives besides logits, as far as its architecture has it.

    ``embedding`` is the length of the vector that its last linear layer takes; ``feature_map`` the shape (channels,
    height, width) of what was averaged over height and width into that vector, of networks that end so.
    """

    embedding: int | None = Field(None, ge=1)
    feature_map: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None

    @model_validator(mode="after")
    def _averages_to_the_embedding(self) -> Self:
        if self.feature_map is not None and self.feature_map[0] != self.embedding:
            raise ValueError("the embedding must have an entry for each channel of the feature map")
        return self


class Packing(_Record):
    """What an exported model was made of, how, and what that changed: measured when it was exported."""

    checkpoint_sha256: Sha256
    graph_sha256: Sha256 = Field(description="of the serialised ONNX graph: damage is noticed before it is parsed")
    precision: Precision
    calibration: Calibration | None = None
    agreement: Agreement
    outputs: Outputs | None = Field(None, description="besides logits; none is known of files exported before 0.3")


class ModelMetadata(_Record):
    """Everything besides the weights that inference needs.

    ``input_size`` is the side of the square that the network sees, in pixels; an image's shorter side is first
    resized to ``resize_size``. ``mean`` and ``std`` are per channel (red, green, blue), for values in 0 ... 1.
    """

    format_version: Literal[1] = 1
    arch: str = Field(pattern=r"^(timm/)?[a-z0-9_.]{1,100}$")
    num_classes: int = Field(ge=1, le=100_000)
    input_size: int = Field(ge=8, le=4096)
    resize_size: int = Field(ge=8, le=4096)
    interpolation: Interpolation = "bilinear"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    labels: LabelSetReference | None = None
    provenance: Provenance | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()
    packing: Packing | None = Field(None, description="of an exported model; a checkpoint has none")
    library_versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _default_resize(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "resize_size" not in data and "input_size" in data:
            side = _square_side(data["input_size"])
            if isinstance(side, int):
                return {**data, "resize_size": math.floor(side * IMAGENET_RESIZE_RATIO)}
        return data

    @field_validator("input_size", mode="before")
    @classmethod
    def _accept_square_shapes(cls, value: Any) -> Any:
        return _square_side(value)

    @field_validator("std")
    @classmethod
    def _std_divides(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError("every value must be above zero, pixels are divided by it")
        return std

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
        """Validate ``data``; raise ``InvalidMetadata`` that names ``where`` and every wrong key."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise InvalidMetadata(f"{where}: the metadata is not valid: {describe(error)}") from error


def _square_side(value: Any) -> Any:
    """Reduce the common spellings ``(S, S)`` and ``(3, S, S)`` to ``S``; leave the rest to validation."""
    if isinstance(value, (list, tuple)):
        sides = tuple(value[1:]) if len(value) == 3 and value[0] == 3 else tuple(value)
        if len(sides) == 2 and sides[0] == sides[1]:
            return sides[0]
        raise ValueError(f"input_size must be square, not {list(value)!r}")
    return value
