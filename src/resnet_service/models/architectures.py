"""Networks by name: torchvision's classifiers, and timm's under names that begin with ``timm/``."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import get_args

import torch
import torchvision
from torch import nn
from torchvision.models import Weights

from resnet_service.errors import InvalidMetadata, UnknownArchitecture
from resnet_service.models.preprocessing import Preprocessing
from resnet_service.types import Interpolation

_TIMM = "timm/"

# With their published weights, these two transform their input inside forward(), controlled by a flag that no
# state_dict records. Rebuilt from a checkpoint, they would give wrong answers. timm has both without the flag.
_NOT_REPRODUCIBLE = {"googlenet", "inception_v3"}


def build(arch: str, num_classes: int) -> nn.Module:
    """Build an architecture with ``num_classes`` outputs and random weights, in evaluation mode.

    Raises:
        UnknownArchitecture: Neither torchvision nor timm has a classifier of this name.
        InvalidMetadata: The architecture exists, but not with this number of classes.

    """
    try:
        return _construct(arch, num_classes).eval()
    except (RuntimeError, MemoryError, ValueError, TypeError) as error:
        raise InvalidMetadata(f"{arch} cannot be built with {num_classes} classes: {error}") from error


def names() -> tuple[str, ...]:
    """Return the names of all architectures: torchvision's, and timm's if it is installed."""
    try:
        import timm
    except ModuleNotFoundError:
        return torchvision_names()
    return (*torchvision_names(), *(_TIMM + name for name in timm.list_models()))


def published_preprocessing(arch: str) -> Preprocessing | None:
    """Return how images are preprocessed for the weights that torchvision (its first) or timm publish.

    ``None`` if there is no configuration, or one that the service's preprocessing cannot follow.

    Raises:
        UnknownArchitecture: No such architecture.

    """
    if arch.startswith(_TIMM):
        name = arch.removeprefix(_TIMM)
        _check_timm(name)
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(name)
        if config is None or config.input_size[0] != 3 or config.input_size[1] != config.input_size[2]:
            return None
        size, source = config.input_size[1], f"timm's configuration of {name}"
        resize = math.floor(size / config.crop_pct)
        return _preprocessing(size, resize, config.interpolation, config.mean, config.std, source)
    if arch not in torchvision_names():
        raise _unknown(arch)
    weights = list(torchvision.models.get_model_weights(arch))
    return preprocessing_of_weights(weights[0].value, arch) if weights else None


def preprocessing_of_weights(weights: Weights, arch: str) -> Preprocessing | None:
    """Return how images are preprocessed for an entry of torchvision; ``None`` as for ``published_preprocessing``."""
    transforms = weights.transforms()
    (size,), (resize,) = transforms.crop_size, transforms.resize_size
    source = f"torchvision's configuration of {arch}"
    return _preprocessing(size, resize, transforms.interpolation.value, transforms.mean, transforms.std, source)


def _preprocessing(
    size: int, resize: int, interpolation: str, mean: Sequence[float], std: Sequence[float], source: str
) -> Preprocessing | None:
    if interpolation not in get_args(Interpolation) or resize < size:
        return None
    known: Interpolation = interpolation  # type: ignore[assignment]  # as just checked
    return Preprocessing(size, resize, known, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), source)


@cache
def shapes_of(arch: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return keys and shapes of an architecture's ``state_dict``, in order; takes no memory for weights.

    Raises:
        UnknownArchitecture: No such architecture.

    """
    try:
        with torch.device("meta"):
            model = _construct(arch, num_classes)
    except NotImplementedError:  # a few architectures compute with real numbers during construction
        model = _construct(arch, num_classes)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _construct(arch: str, num_classes: int) -> nn.Module:
    if arch.startswith(_TIMM):
        name = arch.removeprefix(_TIMM)
        _check_timm(name)
        import timm

        make: Callable[..., nn.Module] = timm.create_model
        return make(name, num_classes=num_classes, pretrained=False)
    if arch not in torchvision_names():
        raise _unknown(arch)
    model: nn.Module = torchvision.models.get_model(arch, num_classes=num_classes, weights=None)
    return model


def _unknown(arch: str) -> UnknownArchitecture:
    return UnknownArchitecture(
        f"There is no architecture {arch!r}. torchvision has {', '.join(torchvision_names())}; "
        f"timm's architectures are named {_TIMM}NAME."
    )


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's classifiers."""
    names = torchvision.models.list_models(module=torchvision.models)
    return tuple(name for name in names if name not in _NOT_REPRODUCIBLE)


def _check_timm(name: str) -> None:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UnknownArchitecture(f"{_TIMM}{name} needs the package timm: pip install timm.") from error
    # is_model() accepts plain names only, not "hf-hub:…", which would download a configuration.
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8])
        raise UnknownArchitecture(f"timm has no architecture {name!r}" + (f"; similar: {similar}." if similar else "."))
