"""Networks by name: torchvision's classifiers, and timm's under names that begin with ``timm/``."""

from collections.abc import Callable, Mapping
from functools import cache

import torch
import torchvision
from torch import nn

from resnet_service.errors import InvalidMetadata, UnknownArchitecture

_TIMM = "timm/"

# With their published weights, these two transform their input inside forward(), controlled by a flag that no
# state_dict records. Rebuilt from a checkpoint, they would give wrong answers. timm has both without the flag.
_NOT_REPRODUCIBLE = {"googlenet", "inception_v3"}

# A bare state_dict is compared with these, the most common ones.
_COMMON = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "mobilenet_v2")


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


def classifier_rows(arch: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the tensors whose first dimension is the number of classes, with that dimension.

    ``shapes`` has the shape of each tensor by its key. The tensors are those whose shapes differ between two builds
    with different numbers of classes. The builds take no memory for weights.
    """
    few, many = _shapes(arch, 10), _shapes(arch, 11)
    return {key: shapes[key][0] for key, shape in few.items() if shape != many[key] and key in shapes and shapes[key]}


def guess(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return a common architecture with these keys and, except in the classifier, these shapes."""
    for arch in _COMMON:
        few, many = _shapes(arch, 10), _shapes(arch, 11)
        if few.keys() == shapes.keys() and all(
            shape == shapes[key] for key, shape in few.items() if shape == many[key]
        ):
            return arch
    return None


@cache
def _shapes(arch: str, num_classes: int) -> dict[str, torch.Size]:
    try:
        with torch.device("meta"):
            model = _construct(arch, num_classes)
    except NotImplementedError:  # a few architectures compute with real numbers during construction
        model = _construct(arch, num_classes)
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


def _construct(arch: str, num_classes: int) -> nn.Module:
    if arch.startswith(_TIMM):
        name = arch.removeprefix(_TIMM)
        _check_timm(name)
        import timm

        make: Callable[..., nn.Module] = timm.create_model
        return make(name, num_classes=num_classes, pretrained=False)
    if arch not in _torchvision_names():
        raise UnknownArchitecture(
            f"There is no architecture {arch!r}. torchvision has {', '.join(_torchvision_names())}; "
            f"timm's architectures are named {_TIMM}NAME."
        )
    model: nn.Module = torchvision.models.get_model(arch, num_classes=num_classes, weights=None)
    return model


@cache
def _torchvision_names() -> tuple[str, ...]:
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
