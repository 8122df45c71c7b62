"""The service's responses as frozen dataclasses, and the function that reads them from JSON."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin

T = TypeVar("T")

# The types that JSON values of a field may have, if not only the field's own; whole numbers are valid floats.
_ACCEPTED: dict[Any, tuple[type, ...]] = {float: (float, int), Mapping: (dict,)}


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and its probability among all classes, 0 ... 1."""

    class_id: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Model:
    """The model that answered; ``version`` is the start of its file's SHA-256."""

    name: str
    arch: str
    version: str


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image's format, by its signature, and its size in pixels as displayed."""

    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of each stage."""

    decode: float
    preprocess: float
    inference: float
    total: float


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


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of one image of a batch."""

    filename: str
    status: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """An answer or an error for each image of a batch, in the order of the request."""

    results: tuple[PredictAnswer | Failure, ...]
    model: Model


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in pixels of the displayed image."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The class activation map of a class: rows of values, which cover ``region``; high values speak for the class."""

    class_id: int
    label: str
    score: float
    map: tuple[tuple[float, ...], ...]
    region: Region
    image: ImageFacts
    model: Model
    timing_ms: Timing


@dataclass(frozen=True, slots=True)
class Embedding:
    """An image's feature vector; ``normalized`` means length 1."""

    embedding: tuple[float, ...]
    normalized: bool
    image: ImageFacts
    model: Model
    timing_ms: Timing


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the model: output index, a stable ID if it has one, and its name."""

    index: int
    id: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Labels:
    """All classes of the model, in the order of its outputs."""

    name: str
    classes: tuple[Class, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The served model; ``metadata`` is the model file's own metadata, unchanged."""

    model: Model
    runtime: str
    precision: str
    service_version: str
    metadata: Mapping[str, Any]


def from_json(kind: type[T], data: object) -> T:
    """Return parsed JSON as ``kind``, a dataclass of this module.

    Unknown fields are ignored, so that newer services can add some.

    Raises:
        TypeError: A field is missing or has another type.

    """
    result: T = _reader(cast(Any, kind))(data)
    return result


def batch_from_json(data: Any) -> BatchAnswer:
    """Return the parsed JSON of a batch; errors as for ``from_json``, or ``KeyError``."""
    results = [
        from_json(Failure, {**item["error"], "filename": item["filename"]})
        if "error" in item
        else from_json(PredictAnswer, {**item, "model": data["model"]})
        for item in data["results"]
    ]
    return BatchAnswer(tuple(results), from_json(Model, data["model"]))


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """Return the function that checks a JSON value and converts it to ``kind``; made once, since answers are large."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        make: Callable[..., Any] = kind  # type: ignore[assignment]  # it is a class, not an instance
        fields = [(field.name, _reader(cast(Any, field.type))) for field in dataclasses.fields(kind)]
        is_object = _reader(dict)
        return lambda value: make(*[read(is_object(value).get(name)) for name, read in fields])
    if origin is tuple:
        item, is_list = _reader(arguments[0]), _reader(list)
        return lambda value: tuple(map(item, is_list(value)))
    if origin is UnionType:
        present_kind, *others = arguments
        if others != [type(None)]:
            raise TypeError(f"{kind} is neither a type nor a type or None")
        present = _reader(present_kind)
        return lambda value: None if value is None else present(value)
    accepted = _ACCEPTED.get(origin or kind, (kind,))

    def checked(value: Any) -> Any:
        if type(value) not in accepted:
            raise TypeError(f"{value!r:.50} is not of type {kind.__name__}")
        return value

    return checked
