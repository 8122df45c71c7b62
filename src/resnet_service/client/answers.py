"""The service's answers as frozen values; fields that are not known here are left out, so that newer services do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and its probability among all, 0 ... 1."""

    class_id: int
    label: str
    score: float

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(data["class_id"], data["label"], data["score"])


@dataclass(frozen=True, slots=True)
class Model:
    """Which model answered; ``version`` is from its file's SHA-256."""

    name: str
    arch: str
    version: str

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(data["name"], data["arch"], data["version"])


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The image's format by its bytes, its size in pixels as displayed."""

    format: str
    width: int
    height: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(data["format"], data["width"], data["height"])


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds spent in each stage."""

    decode: float
    preprocess: float
    inference: float
    total: float

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(data["decode"], data["preprocess"], data["inference"], data["total"])


@dataclass(frozen=True, slots=True)
class PredictAnswer:
    """The most probable classes of one image, best first."""

    predictions: tuple[Prediction, ...]
    model: Model
    image: ImageFacts
    timing_ms: Timing

    @property
    def best(self) -> Prediction:
        """The most probable class."""
        return self.predictions[0]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(
            tuple(map(Prediction.of, data["predictions"])),
            Model.of(data["model"]),
            ImageFacts.of(data["image"]),
            Timing.of(data["timing_ms"]),
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one image of a batch has no answer."""

    filename: str
    status: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """For each image its answer or why there is none, in the order they were sent."""

    results: tuple[PredictAnswer | Failure, ...]
    model: Model

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""

        def result(item: Mapping[str, Any]) -> PredictAnswer | Failure:
            if "error" not in item:
                return PredictAnswer.of({**item, "model": data["model"]})
            problem = item["error"]
            return Failure(item["filename"], problem["status"], problem["code"], problem["detail"])

        return cls(tuple(map(result, data["results"])), Model.of(data["model"]))


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in the displayed image's pixels."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The class activation map of a class: which parts of ``region`` spoke for it, row by row."""

    class_id: int
    label: str
    score: float
    map: tuple[tuple[float, ...], ...]
    region: Region
    image: ImageFacts
    model: Model
    timing_ms: Timing

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        region = data["region"]
        return cls(
            data["class_id"],
            data["label"],
            data["score"],
            tuple(map(tuple, data["map"])),
            Region(region["left"], region["top"], region["width"], region["height"]),
            ImageFacts.of(data["image"]),
            Model.of(data["model"]),
            Timing.of(data["timing_ms"]),
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """The image's feature vector; ``normalized``: of length 1."""

    embedding: tuple[float, ...]
    normalized: bool
    image: ImageFacts
    model: Model
    timing_ms: Timing

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(
            tuple(data["embedding"]),
            data["normalized"],
            ImageFacts.of(data["image"]),
            Model.of(data["model"]),
            Timing.of(data["timing_ms"]),
        )


@dataclass(frozen=True, slots=True)
class Class:
    """One class that the model knows: output index, a stable id where it has one, a name."""

    index: int
    id: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Labels:
    """All classes of the model, in the order of its outputs."""

    name: str
    classes: tuple[Class, ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(
            data["name"], tuple(Class(known["index"], known.get("id"), known["name"]) for known in data["classes"])
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is being served; ``metadata`` is what the model file says about itself, as it is."""

    model: Model
    runtime: str
    precision: str
    service_version: str
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(
            Model.of(data["model"]), data["runtime"], data["precision"], data["service_version"], data["metadata"]
        )
