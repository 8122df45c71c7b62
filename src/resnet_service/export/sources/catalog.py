"""The weights that ``pull`` knows by an architecture's name, without PyTorch: where they are, and what they need.

Every other model of the Hugging Face Hub is named by its repository; torchvision's other weights are looked up in the
installed torchvision.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from resnet_service.errors import UnknownArchitecture
from resnet_service.models.architecture_names import known_names, nearest, resolve
from resnet_service.models.networks import ARCHITECTURES, LITE0, state_shapes

IMAGENET = "imagenet1k"  # the label set of all weights that are known by name, and part of their file names

DEFAULT_ARCH = "resnet18"

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
    """A repository on the Hugging Face Hub; a pinned one has the revision and the SHA-256 of its file of weights.

    ``accuracy`` is the top-1, in percent, that the first publisher of the weights states.
    """

    repository: str
    revision: str | None = None
    sha256: str | None = None
    accuracy: float | None = None


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
        # The weights of torchvision's files, in another format.
        **{arch: HubFile(f"timm/{arch}.tv_in1k", accuracy=file.accuracy) for arch, file in TORCHVISION.items()},
        DEFAULT_ARCH: HubFile(
            "timm/resnet18.tv_in1k",
            "a987fd6b60f845221bfff84b6f0191273ba56ead",
            "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
            TORCHVISION[DEFAULT_ARCH].accuracy,
        ),
        LITE0: HubFile("timm/tf_efficientnet_lite0.in1k"),
    }
)

PYPI = (LITE0,)

# The address of a repository's page, as it is copied from a browser.
_HUB_ADDRESS = re.compile(r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)(?:/tree/main)?/?$")

_EXAMPLE = "as in `resnet-service pull timm/resnet50.a1_in1k`"


def is_repository(name: str) -> bool:
    """Whether a name is a repository of the Hub; of the names with a slash, only ``LITE0`` is an architecture."""
    return "/" in name and name not in ARCHITECTURES


def resolve_name(name: str, option: str) -> str:
    """Return the architecture that a name stands for, in whatever spelling, or the repository of
    the Hub whose address it is; any other name as it is.

    Args:
        name: As a user gives it.
        option: Where the user gives it, for messages.

    Raises:
        UnknownArchitecture: It is like the name of an architecture, or stands for one whose weights are in
            repositories; the message has the names to choose from.

    """
    name = _HUB_ADDRESS.sub(r"\1", name)
    if "/" in name or name in ARCHITECTURES:
        return name
    if "." in name.removeprefix("torchvision.models."):  # timm's names of weights: resnet18.a1_in1k
        raise UnknownArchitecture(
            f"{option} {name[:100]} names certain weights, not an architecture alone. Name the repository that has "
            f"them: resnet-service pull timm/{name[:100]}"
        )
    found = resolve(name)
    similar = [] if found else nearest(name, known_names())
    if similar:
        raise UnknownArchitecture(
            f"{option} {name[:100]}: no architecture of this name is known. The nearest are {', '.join(similar)}. Of "
            f"other models, name the repository, {_EXAMPLE}."
        )
    if not found:
        return name  # each source says what it has, or which package it needs to know more
    known = [arch for arch in found if not is_repository(arch)]
    if not known:
        raise UnknownArchitecture(
            f"{option} {name} is an architecture of timm, whose weights are in repositories of the Hugging Face Hub. "
            f"Name one of them, {_EXAMPLE}."
        )
    return known[0]


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
        sources = ["hub", *(["torchvision"] if name in TORCHVISION else [])]
        sources += ["pypi"] if name in PYPI else []
        rows.append((name, f"{megabytes:.0f} MB, {accuracy}{', '.join(sources)}"))
    return [*rows, ("OWNER/NAME", "a repository of the Hub: timm, or a ResNet")]
