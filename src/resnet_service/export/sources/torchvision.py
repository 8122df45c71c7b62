"""Weights from PyTorch's download host, or from a mirror of it."""

import re
from importlib.metadata import version

import torchvision
from torchvision.models import Weights
from torchvision.transforms import InterpolationMode

from resnet_service.errors import SourceDigestMismatch, StateDictMismatch, UnknownArchitecture
from resnet_service.export.sources.base import IMAGENET, Pulled, PullRequest, download, imagenet_labels, write
from resnet_service.models import architectures
from resnet_service.models.checkpoint.pytorch import load_values
from resnet_service.models.metadata import ModelMetadata, Provenance
from resnet_service.system.files import sha256_of

URL = "https://download.pytorch.org/models"


def describe(arch: str) -> str:
    """Say what ``fetch`` brings when it is asked for ``arch``."""
    return f"{arch} with ImageNet weights, from torchvision"


def fetch(request: PullRequest) -> Pulled:
    """Fetch the weights that torchvision publishes for the architecture; errors as for ``pull``."""
    return fetch_weights(_published_weights(request.arch), request)


def fetch_weights(weights: Weights, request: PullRequest) -> Pulled:
    """Fetch ``weights``; otherwise as ``fetch``."""
    arch = request.arch
    name = weights.url.rsplit("/", 1)[1]
    expected = re.search(r"-([0-9a-f]{8,64})\.pth$", name)
    if expected is None:
        raise UnknownArchitecture(f"torchvision publishes no digest for {name}, so it cannot be checked.")
    url = f"{(request.mirror or URL).rstrip('/')}/{name}"
    request.on_message(f"Fetching {arch} from {url}")
    data = download(url, request.progress)
    digest = sha256_of(data)
    if not digest.startswith(expected[1]):
        raise SourceDigestMismatch(
            f"{url} gave {len(data):,} bytes with SHA-256 {digest}, which does not begin with {expected[1]}."
        )
    model = architectures.build(arch, 1000)
    try:
        model.load_state_dict(load_values(data, url))
    except RuntimeError as error:
        raise StateDictMismatch(
            f"{url} does not fit {arch} of the installed torchvision {version('torchvision')}: {error}"
        ) from error
    transforms = weights.transforms()
    metadata = ModelMetadata(
        arch=arch,
        num_classes=1000,
        input_size=transforms.crop_size[0],
        resize_size=transforms.resize_size[0],
        interpolation=InterpolationMode(transforms.interpolation).value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        labels=imagenet_labels(request.folder),
        provenance=Provenance(
            source=f"torchvision {version('torchvision')}",
            url=url,
            sha256=digest,
            licence="BSD-3-Clause (code); weights trained on ImageNet, whose terms apply",
            published_accuracy=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        ),
    )
    return write(model, metadata, request.folder / f"{arch}-{IMAGENET}.pth")


def _published_weights(arch: str) -> Weights:
    architectures.build(arch, 1000)
    if arch.startswith("timm/"):
        raise UnknownArchitecture(f"{arch} is a name of timm; pull takes torchvision's names, such as resnet18.")
    published = torchvision.models.get_model_weights(arch)
    # The first published weights are those of the papers and of most comparisons; later recipes have other names.
    weights: Weights = getattr(published, "IMAGENET1K_V1", published.DEFAULT).value
    return weights
