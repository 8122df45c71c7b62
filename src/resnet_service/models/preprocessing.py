"""The preprocessing of architectures: what torchvision and timm do to an image before the network gets it."""

import math
from typing import Any, NamedTuple

from resnet_service.models import networks
from resnet_service.models.metadata import IMAGENET_MEAN, IMAGENET_STD
from resnet_service.types import Channels, Interpolation


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


_HALF = (0.5, 0.5, 0.5)
_STANDARD = Preprocessing(224, 256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, "torchvision's configuration")
_KNOWN = {
    **{arch: _STANDARD for arch in networks.ARCHITECTURES if not arch.startswith("timm/")},
    networks.LITE0: Preprocessing(224, 256, "bicubic", _HALF, _HALF, "timm's configuration"),
}
_DEFAULT = _STANDARD._replace(source="ImageNet's standard, since the architecture has no configuration")


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
