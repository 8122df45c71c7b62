"""Weights from PyTorch's download host, or from a mirror of it.

The original weights of the architectures in ``catalog`` are known without torchvision; those of its other architectures
are looked up in the installed torchvision.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from resnet_service.errors import InvalidMetadata, SourceDigestMismatch, StateDictMismatch, UnknownArchitecture
from resnet_service.export.sources.base import (
    Pulled,
    PullRequest,
    checkpoint_path,
    download,
    imagenet_labels,
    write,
)
from resnet_service.export.sources.catalog import TORCHVISION, TORCHVISION_LICENCE
from resnet_service.models.checkpoint.torch_files import read_state_dict
from resnet_service.models.metadata import ModelMetadata, Provenance
from resnet_service.models.preprocessing import Preprocessing, preprocessing_of
from resnet_service.system.files import sha256_of

if TYPE_CHECKING:
    from torchvision.models import Weights

URL = "https://download.pytorch.org/models"


class _Published(NamedTuple):
    """A published file, and what inference needs to know of it."""

    file: str
    preprocessing: Preprocessing
    accuracy: float
    sha256: str | None = None


def describe(request: PullRequest) -> str:
    """Say what ``fetch`` brings."""
    return f"{request.wanted} with ImageNet weights, from torchvision"


def check(request: PullRequest) -> None:
    """Check that torchvision publishes weights of the name; errors as of ``Source``."""
    if request.wanted not in TORCHVISION:
        _check_name(request.wanted)


def fetch(request: PullRequest) -> Pulled:
    """Fetch the weights that torchvision publishes for the architecture; errors as for ``pull``."""
    known = TORCHVISION.get(request.wanted)
    if known is None:
        return fetch_weights(_look_up(request.wanted), request)
    preprocessing = preprocessing_of(request.wanted)
    return _fetch(_Published(known.name, preprocessing, known.accuracy, known.sha256), request)


def fetch_weights(weights: "Weights", request: PullRequest) -> Pulled:
    """Fetch the weights that an entry of the installed torchvision describes; otherwise as ``fetch``."""
    from resnet_service.models.architectures import preprocessing_of_weights

    preprocessing = preprocessing_of_weights(weights, request.wanted)
    if preprocessing is None:
        raise InvalidMetadata(f"{request.wanted} was published with a preprocessing that this service does not have.")
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return _fetch(_Published(weights.url.rsplit("/", 1)[1], preprocessing, accuracy), request)


def _fetch(published: _Published, request: PullRequest) -> Pulled:
    arch = request.wanted
    digits = re.search(r"-([0-9a-f]{8,64})\.pth$", published.file)
    if digits is None:
        raise UnknownArchitecture(f"torchvision publishes no digest for {published.file}, so it cannot be checked.")
    expected = published.sha256 or digits[1]
    url = f"{(request.mirror or URL).rstrip('/')}/{published.file}"
    request.on_message(f"Fetching {arch} from {url}")
    data = download(url, request.progress)
    digest = sha256_of(data)
    if not digest.startswith(expected):
        raise SourceDigestMismatch(
            f"{url} gave {len(data):,} bytes with SHA-256 {digest}, which does not begin with {expected}. "
            "Try again; if the bytes stay others, use another mirror (--weights-url) or another --source."
        )
    metadata = ModelMetadata.parse(
        {
            "arch": arch,
            "num_classes": 1000,
            **published.preprocessing.fields,
            "labels": imagenet_labels(request.folder),
            "provenance": Provenance(
                source="torchvision",
                url=url,
                sha256=digest,
                licence=TORCHVISION_LICENCE,
                published_accuracy=published.accuracy,
            ),
        },
        url,
    )
    try:
        return write(read_state_dict(data, url), metadata, checkpoint_path(request, arch))
    except StateDictMismatch as error:
        raise StateDictMismatch(f"{url} is not a file of weights of {arch}: {error}") from error


def _check_name(arch: str) -> None:
    from resnet_service.models.architectures import torchvision_names

    if arch not in torchvision_names():
        raise UnknownArchitecture(
            f"The source torchvision has its own architectures only, such as resnet18, and not {arch}."
        )


def _look_up(arch: str) -> "Weights":
    """Return the original weights of an architecture of the installed torchvision."""
    import torchvision

    published = torchvision.models.get_model_weights(arch)
    # The first published weights are those of the papers and of most comparisons; later recipes have other names.
    weights: Weights = getattr(published, "IMAGENET1K_V1", published.DEFAULT).value
    return weights
