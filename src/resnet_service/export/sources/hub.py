"""Weights from the Hugging Face Hub or a mirror of it: any timm network, and transformers' ResNets.

Mirrors (``HF_ENDPOINT``), tokens (``HF_TOKEN``) and the cache (``HF_HOME``), which is only read, are those of the Hub's
library. Only ``model.safetensors`` is fetched: a pickle could run code.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnet_service.errors import SourceDigestMismatch, UnknownArchitecture, UnreadableModel
from resnet_service.export.sources.base import (
    Pulled,
    PullRequest,
    checkpoint_path,
    imagenet_labels,
    write,
)
from resnet_service.export.sources.catalog import HUB, IMAGENET, TORCHVISION_LICENCE, HubFile, is_repository
from resnet_service.export.sources.hub_config import CONFIG, HubModel, fits_imagenet, parse_config
from resnet_service.export.sources.hub_files import find_file, list_files, read_config, read_file
from resnet_service.models.checkpoint.safetensors import load_arrays
from resnet_service.models.labels import find_label_file, read_label_set
from resnet_service.models.metadata import ModelMetadata, Provenance
from resnet_service.models.networks import ARCHITECTURES
from resnet_service.models.preprocessing import preprocessing_of
from resnet_service.system.files import sha256_of

WEIGHTS = "model.safetensors"

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_PICKLES = (".bin", ".pth", ".pt", ".pkl", ".pickle", ".ckpt")
_OTHER_BYTES = "Try again; if the bytes stay others, use another mirror (HF_ENDPOINT) or another --source."


def describe(request: PullRequest) -> str:
    """Say what ``fetch`` brings."""
    return f"{request.wanted} from the Hugging Face Hub"


def check(request: PullRequest) -> None:
    """Check that the request names a repository or is known by name, and that the Hub's library is installed."""
    name = request.wanted
    if is_repository(name):
        if not _REPOSITORY.fullmatch(name) or "--" in name or ".." in name:
            raise UnknownArchitecture(f"{name} is not the name of a repository; they have the form OWNER/NAME.")
    elif name not in HUB:
        raise UnknownArchitecture(
            f"The source hub knows {', '.join(HUB)} by name, and not {name}; of other models, name the repository, as "
            "in `resnet-service pull timm/resnet50.a1_in1k`."
        )
    # Versions and the like are not sent; see decision 0010, "No telemetry". The library reads this when imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub  # noqa: F401 - the missing package is to be named now


def fetch(request: PullRequest) -> Pulled:
    """Fetch configuration and weights of a repository and write them as a checkpoint; errors as for ``pull``."""
    from huggingface_hub import hf_hub_url

    known = HUB.get(request.wanted, HubFile(request.wanted))
    repository = known.repository
    where = f"{repository}/{WEIGHTS}"
    request.on_message(f"Fetching {repository} from the Hugging Face Hub")
    found = find_file(repository, WEIGHTS, known.revision, known.sha256)
    if found is None:
        raise _without_safetensors(repository)
    if known.sha256 not in (None, found.sha256):
        raise SourceDigestMismatch(f"{where} has SHA-256 {found.sha256}, expected {known.sha256}. {_OTHER_BYTES}")
    # What the server says of a pinned file does not count: it has no digest.
    found = found._replace(commit=known.revision or found.commit)
    model = _published(request.wanted) if known.sha256 else _described(repository, found.commit)
    if model.metadata.arch not in ARCHITECTURES:
        _check_with_timm(model, repository)
    data = read_file(repository, WEIGHTS, found, request.progress)
    digest = sha256_of(data)
    if digest != found.sha256:
        raise SourceDigestMismatch(
            f"{where} has {len(data):,} bytes with SHA-256 {digest}, expected {found.sha256}. {_OTHER_BYTES}"
        )
    state = model.rename(load_arrays(data, where)[1])
    target = checkpoint_path(request, request.wanted)
    metadata = model.metadata.model_copy(
        update={
            **_classes(model, target, repository, request.on_message),
            "provenance": Provenance(
                source=f"Hugging Face Hub, {repository}"[:200],
                url=hf_hub_url(repository, WEIGHTS, revision=found.commit)[:2000],
                sha256=digest,
                licence=model.licence,
                published_accuracy=known.accuracy,
            ),
        }
    )
    return write(state, metadata, target)


def _published(arch: str) -> HubModel:
    """Return what this package knows of pinned weights: those of torchvision."""
    metadata = ModelMetadata(arch=arch, num_classes=1000, **preprocessing_of(arch).fields)
    return HubModel(metadata, (), imagenet=True, licence=TORCHVISION_LICENCE, pooling=None, rename=dict)


def _described(repository: str, commit: str) -> HubModel:
    """Return what the repository says of its model."""
    config = read_config(repository, CONFIG, commit)
    if config is None:
        raise UnknownArchitecture(
            f"{repository} has no {CONFIG}, so its architecture is not known. Fetch its {WEIGHTS} yourself, and "
            "convert it: resnet-service convert model.safetensors OUTPUT.safetensors --arch NAME"
        )
    return parse_config(config, lambda name: read_config(repository, name, commit), repository)


def _classes(model: HubModel, target: Path, repository: str, on_message: Callable[[str], None]) -> dict[str, Any]:
    """Return the metadata of the model's classes: ImageNet's label set, or else their names, if there are any."""
    imagenet = read_label_set(find_label_file(IMAGENET, target))[0]
    if model.imagenet or fits_imagenet(model.classes, imagenet):
        return {"labels": imagenet_labels(target.parent)}
    if not model.classes:
        on_message(f"{repository} does not name its classes; they are numbered")
        return {}
    return {"class_names": tuple(label.name for label in model.classes)}


def _check_with_timm(model: HubModel, repository: str) -> None:
    """Check, before the download, a network that timm builds.

    Raises:
        ModuleNotFoundError: PyTorch or timm is not installed.
        UnknownArchitecture: timm does not have it, or has it with another pooling, which no weight would show.

    """
    import timm  # noqa: F401 - the missing package is to be named now

    from resnet_service.models import architectures

    network = architectures.build(model.metadata.arch, model.metadata.num_classes)
    head = getattr(network, "head", None)
    found = (
        getattr(head, "global_pool", None),
        getattr(head, "pool_type", None),
        getattr(network, "global_pool", None),
    )
    names = [name for pool in found if isinstance(name := getattr(pool, "pool_type", pool), str)]
    if model.pooling is not None and model.pooling != next(iter(names), None):
        raise UnknownArchitecture(
            f"{repository} has the pooling {model.pooling[:40]!r}, and {model.metadata.arch} of the installed timm "
            "another one, with which the same weights compute something else."
        )


def _without_safetensors(repository: str) -> Exception:
    """Return the error of a repository that has no file of the name ``WEIGHTS``."""
    names = list_files(repository)
    if any(re.fullmatch(r"model-\d+-of-\d+\.safetensors", name) for name in names):
        return UnreadableModel(f"{repository} has its weights in several files; pull takes one, {WEIGHTS}.")
    pickles = [name for name in names if name.endswith(_PICKLES) and name.isprintable() and len(name) < 100]
    if pickles:
        return UnreadableModel(
            f"{repository} has its weights only as a pickle ({pickles[0]}), which can run code when it is loaded; pull "
            f"does not fetch it. Ask its author for {WEIGHTS}, or fetch the file yourself and convert it: "
            "resnet-service convert"
        )
    return UnreadableModel(f"{repository} has no {WEIGHTS}. Name a repository that has one.")
