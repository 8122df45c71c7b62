"""The preprocessing of architectures: what torchvision and timm do to an image before the network gets it."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from resnet_service.errors import InvalidMetadata
from resnet_service.models import networks
from resnet_service.models.metadata import IMAGENET_MEAN, IMAGENET_STD, InputSize, ResizeSize, Std
from resnet_service.types import Channels, Interpolation
from resnet_service.validation import describe_first

_TYPES: Mapping[str, Any] = {
    "input_size": InputSize,
    "resize_size": ResizeSize,
    "interpolation": Interpolation,
    "mean": Channels,
    "std": Std,
}
# The names of the values, which are those of ``ModelMetadata``.
VALUES = tuple(_TYPES)


class Preprocessing(NamedTuple):
    """As in ``ModelMetadata``; ``source`` says whose configuration it is."""

    input_size: int
    resize_size: int
    interpolation: Interpolation
    mean: Channels
    std: Channels
    source: str

    @property
    def fields(self) -> dict[str, Any]:
        """The values by their names in ``ModelMetadata``."""
        return {name: value for name, value in self._asdict().items() if name != "source"}

    def for_size(self, input_size: int) -> int:
        """Return the ``resize_size`` for another input size, in the same proportion."""
        return math.floor(input_size * self.resize_size / self.input_size)

    def with_values(self, values: Mapping[str, Any]) -> "Preprocessing":
        """Return the preprocessing with other ``VALUES``, which are not checked; ``check_value`` checks one.

        With another ``input_size`` alone, ``resize_size`` is in the same proportion as before.
        """
        sizes = {"resize_size": self.for_size(values["input_size"])} if "input_size" in values else {}
        return self._replace(**{**sizes, **values})


_HALF = (0.5, 0.5, 0.5)
# Where no configuration is known.
STANDARD = Preprocessing(224, 256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, "ImageNet's standard values")
_KNOWN = {
    **{
        arch: STANDARD._replace(source="torchvision's configuration")
        for arch in networks.ARCHITECTURES
        if not arch.startswith("timm/")
    },
    networks.LITE0: Preprocessing(224, 256, "bicubic", _HALF, _HALF, "timm's configuration"),
}
_DEFAULT = STANDARD._replace(source="ImageNet's standard values, since the architecture has no configuration")


def preprocessing_of(arch: str) -> Preprocessing:
    """Return the preprocessing with which torchvision or timm publish weights of an architecture.

    Raises:
        UnknownArchitecture: No such architecture.
        ModuleNotFoundError: Only PyTorch knows it, and it is not installed.

    """
    known = _KNOWN.get(arch)
    if known is not None:
        return known._replace(source=f"{known.source} of {arch.removeprefix('timm/')}")
    from resnet_service.models.architectures import published_preprocessing

    return published_preprocessing(arch) or _DEFAULT


def check_value(name: str, value: Any, about: str) -> Any:
    """Return one of the ``VALUES`` as ``ModelMetadata`` has it.

    Raises:
        InvalidMetadata: The value is not valid; the message begins with ``about``.

    """
    try:
        return _adapter(name).validate_python(value)
    except ValidationError as error:
        raise InvalidMetadata(f"{about}: {describe_first(error)}") from error


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_TYPES[name], config=ConfigDict(allow_inf_nan=False))
