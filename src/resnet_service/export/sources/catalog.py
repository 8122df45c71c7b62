"""The weights that ``pull`` knows by an architecture's name, without PyTorch: where they are, and what they need.

Every other model of the Hugging Face Hub is named by its repository; torchvision's other weights are looked up in the
installed torchvision.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from resnet_service.models.networks import ARCHITECTURES, state_shapes

IMAGENET = "imagenet1k"  # the label set of all weights that are known by name, and part of their file names

DEFAULT_ARCH = "resnet18"
LITE0 = "timm/tf_efficientnet_lite0"

# Publishers' terms, as far as they state some.
TORCHVISION_LICENCE = "BSD-3-Clause (code); weights trained on ImageNet, whose terms apply"


class TorchvisionFile(NamedTuple):
    """A file of torchvision's original weights (IMAGENET1K_V1): 224 pixels, cropped after a resize to 256.

    ``accuracy`` is the published top-1, in percent. ``sha256`` is written here only where several public sources agree
    on it; of the others, torchvision publishes the first eight digits, in the file's name.
    """

    name: str
    accuracy: float
    sha256: str | None = None


class HubFile(NamedTuple):
    """A repository on the Hugging Face Hub; a pinned one has the revision and the SHA-256 of its file of weights."""

    repository: str
    revision: str | None = None
    sha256: str | None = None


TORCHVISION: Mapping[str, TorchvisionFile] = MappingProxyType(
    {
        "resnet18": TorchvisionFile(
            "resnet18-f37072fd.pth", 69.758, "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
        ),
        "resnet34": TorchvisionFile("resnet34-b627a593.pth", 73.314),
        "resnet50": TorchvisionFile("resnet50-0676ba61.pth", 76.130),
        "resnet101": TorchvisionFile("resnet101-63fe2227.pth", 77.374),
        "resnet152": TorchvisionFile("resnet152-394f9c45.pth", 78.312),
        "resnext50_32x4d": TorchvisionFile("resnext50_32x4d-7cdf4587.pth", 77.618),
        "resnext101_32x8d": TorchvisionFile("resnext101_32x8d-8ba56ff5.pth", 79.312),
        "wide_resnet50_2": TorchvisionFile("wide_resnet50_2-95faca4d.pth", 78.468),
        "wide_resnet101_2": TorchvisionFile("wide_resnet101_2-32ee1156.pth", 78.848),
    }
)

HUB: Mapping[str, HubFile] = MappingProxyType(
    {
        **{arch: HubFile(f"timm/{arch}.tv_in1k") for arch in TORCHVISION},
        DEFAULT_ARCH: HubFile(
            "timm/resnet18.tv_in1k",
            "a987fd6b60f845221bfff84b6f0191273ba56ead",
            "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
        ),
        LITE0: HubFile("timm/tf_efficientnet_lite0.in1k"),
    }
)

PYPI = (LITE0,)


def is_repository(name: str) -> bool:
    """Whether a name is a repository of the Hub; of the names with a slash, only ``LITE0`` is an architecture."""
    return "/" in name and name not in ARCHITECTURES


def checkpoint_stem(name: str) -> str:
    """Return the name of the checkpoint, without suffix, that ``pull`` writes for an architecture or a repository."""
    if is_repository(name):
        return name.replace("/", "--")  # as the Hub's own cache does; no repository's name contains it
    return f"efficientnet-lite0-{IMAGENET}" if name == LITE0 else f"{name}-{IMAGENET}"


def known_weights() -> list[tuple[str, str]]:
    """Return what is known by name, and what `pull --list` shows of it: size, accuracy, sources."""
    rows = []
    for name in ARCHITECTURES:
        megabytes = 4 * sum(math.prod(shape) for shape in state_shapes(name, 1000).values()) / 1e6
        accuracy = f"top-1 {TORCHVISION[name].accuracy:.1f} %, " if name in TORCHVISION else ""
        sources = [f"hub ({HUB[name].repository})", *(["torchvision"] if name in TORCHVISION else [])]
        sources += ["pypi"] if name in PYPI else []
        rows.append((name, f"{megabytes:.0f} MB, {accuracy}{', '.join(sources)}"))
    others = "any network of timm, or ResNet of transformers, that has model.safetensors"
    return [*rows, ("OWNER/NAME", f"a repository of the Hugging Face Hub: {others}")]
