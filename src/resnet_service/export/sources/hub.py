"""Weights from the Hugging Face Hub or a mirror of it, by its own library: any timm network, and transformers' ResNets.

Mirrors (``HF_ENDPOINT``), tokens (``HF_TOKEN``), the cache (``HF_HOME``) and the resumption of a broken transfer are
the library's. Only ``model.safetensors`` is fetched: a pickle could run code.
"""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from resnet_service.errors import (
    SourceDigestMismatch,
    SourceUnreachable,
    SuspiciousModel,
    UnknownArchitecture,
    UnreadableModel,
)
from resnet_service.export.sources.base import (
    Pulled,
    PullRequest,
    checkpoint_path,
    imagenet_labels,
    within,
    write,
)
from resnet_service.export.sources.catalog import HUB, IMAGENET, HubFile, is_repository
from resnet_service.export.sources.hub_config import CONFIG, HubModel, fits_imagenet, parse_config
from resnet_service.models.checkpoint.safetensors import load_arrays
from resnet_service.models.label_forms import dump_label_set, label_set_name
from resnet_service.models.labels import LabelSet, find_label_file, read_label_set
from resnet_service.models.metadata import LabelSetReference, Provenance
from resnet_service.models.networks import ARCHITECTURES
from resnet_service.system.files import MAX_MODEL_BYTES, atomic_write, sha256_of
from resnet_service.types import Progress

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

WEIGHTS = "model.safetensors"
RESPONSE_SECONDS = 6
MAX_CONFIG_BYTES = 4_000_000  # of 21,841 classes with their names, a config.json has 1.5 MB

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PICKLES = (".bin", ".pth", ".pt", ".pkl", ".pickle", ".ckpt")

T = TypeVar("T")


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
    if known.revision and known.sha256 and _cached(repository, WEIGHTS, known.revision):
        revision, expected = known.revision, known.sha256
    else:
        revision, expected = _resolve(known)
    config = _read_config(repository, CONFIG, revision)
    if config is None:
        raise UnknownArchitecture(
            f"{repository} has no {CONFIG}, so its architecture is not known. Fetch its {WEIGHTS} yourself, and "
            "convert it: resnet-service convert model.safetensors OUTPUT.safetensors --arch NAME"
        )
    model = parse_config(config, lambda name: _read_config(repository, name, revision), repository)
    if model.metadata.arch not in ARCHITECTURES:
        _check_with_timm(model, repository)
    path = _download(repository, WEIGHTS, revision, request.progress)
    data = path.read_bytes()
    digest = sha256_of(data)
    if digest != expected:
        path.resolve().unlink(missing_ok=True)  # else the cache would give the same bytes again
        raise SourceDigestMismatch(f"{where} has {len(data):,} bytes with SHA-256 {digest}, expected {expected}.")
    state = model.rename(load_arrays(data, where)[1])
    target = checkpoint_path(request, request.wanted)
    metadata = model.metadata.model_copy(
        update={
            "labels": _label_set(model, target, repository, request.on_message),
            "provenance": Provenance(
                source=f"Hugging Face Hub, {repository}"[:200],
                url=hf_hub_url(repository, WEIGHTS, revision=revision)[:2000],
                sha256=digest,
                licence=model.licence,
                published_accuracy=known.accuracy,
            ),
        }
    )
    return write(state, metadata, target)


def _resolve(known: HubFile) -> tuple[str, str]:
    """Return the commit and the SHA-256 of a repository's weights, after one request with a short limit.

    With ``HF_HUB_OFFLINE``, those that timm or transformers left in the cache.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import EntryNotFoundError

    repository = known.repository
    cached = _cached(repository, WEIGHTS, known.revision or "main") if HF_HUB_OFFLINE else None
    # A file in the cache, snapshots/COMMIT/NAME, is a link to blobs/SHA-256.
    if cached is not None and _SHA256.fullmatch(cached.resolve().name):
        return cached.parent.name, cached.resolve().name
    try:
        head = _head(repository, WEIGHTS, known.revision)
    except EntryNotFoundError as error:
        raise _without_safetensors(repository) from error
    if head.commit_hash is None or not _SHA256.fullmatch(head.etag or ""):
        raise SourceUnreachable(
            f"{head.location.partition('?')[0][:300]} does not state commit and SHA-256 of the file, as the Hugging "
            "Face Hub and its mirrors do."
        )
    if (head.size or 0) > MAX_MODEL_BYTES:
        raise SuspiciousModel(f"{repository}/{WEIGHTS} has {head.size:,} bytes; the limit is {MAX_MODEL_BYTES:,}.")
    if known.sha256 not in (None, head.etag):
        raise SourceDigestMismatch(f"{repository}/{WEIGHTS} has SHA-256 {head.etag}, expected {known.sha256}.")
    return head.commit_hash, str(head.etag)


def _read_config(repository: str, name: str, revision: str) -> bytes | None:
    """Return a small file of the repository; ``None`` if it has none of that name."""
    from huggingface_hub.errors import EntryNotFoundError

    path = _cached(repository, name, revision)
    if path is None:
        try:
            size = _head(repository, name, revision).size
        except EntryNotFoundError:
            return None
        if size is None or size > MAX_CONFIG_BYTES:
            raise SuspiciousModel(f"{repository}/{name} has {size} bytes; the limit is {MAX_CONFIG_BYTES:,}.")
        path = _download(repository, name, revision)
    data = path.read_bytes()
    if len(data) > MAX_CONFIG_BYTES:
        raise SuspiciousModel(f"{repository}/{name} has {len(data):,} bytes; the limit is {MAX_CONFIG_BYTES:,}.")
    return data


def _label_set(
    model: HubModel, target: Path, repository: str, on_message: Callable[[str], None]
) -> LabelSetReference | None:
    """Return the label set of the model's classes; if it is not ImageNet's, write it beside the checkpoint."""
    imagenet = read_label_set(find_label_file(IMAGENET, target))[0]
    if model.imagenet or fits_imagenet(model.classes, imagenet):
        return imagenet_labels(target.parent)
    if not model.classes:
        on_message(f"{repository} does not name its classes; they are numbered.")
        return None
    name = label_set_name(target)
    labels = LabelSet(name=name, source=f"Hugging Face Hub, {repository}", classes=model.classes)
    path = target.with_name(f"{name}.json")
    atomic_write(path, dump_label_set(labels))
    on_message(f"Wrote {path}: the names of {len(labels):,} classes")
    return read_label_set(path)[1]


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
    from huggingface_hub import HfApi

    info = _call(repository, lambda: HfApi().model_info(repository, timeout=RESPONSE_SECONDS))
    names = sorted(sibling.rfilename for sibling in info.siblings or ())
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


def _cached(repository: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _head(repository: str, name: str, revision: str | None) -> "HfFileMetadata":
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository, name, revision=revision)
    return _call(repository, lambda: get_hf_file_metadata(url, timeout=RESPONSE_SECONDS))


def _call(repository: str, call: Callable[[], T]) -> T:
    """Make one request within ``RESPONSE_SECONDS``; turn all errors but that of a missing file into ours."""
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    try:
        return within(RESPONSE_SECONDS, call)
    except EntryNotFoundError:
        raise
    except HfHubHTTPError as error:
        raise SourceUnreachable(f"{ENDPOINT} {_answer(error, repository)}") from error
    except OfflineModeIsEnabled as error:
        raise SourceUnreachable(f"{repository} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it.") from error
    except TimeoutError as error:
        raise SourceUnreachable(
            f"{ENDPOINT} cannot be reached (no answer within {RESPONSE_SECONDS} seconds)."
        ) from error
    except Exception as error:  # of whichever HTTP client the library's version uses
        raise SourceUnreachable(f"{ENDPOINT} cannot be reached ({_reason(error)}).") from error


def _download(
    repository: str, name: str, revision: str, progress: Progress = lambda done, total, speed="": None
) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            hf_hub_download(
                repository, name, revision=revision, etag_timeout=RESPONSE_SECONDS, tqdm_class=_bar_class(progress)
            )
        )
    except HfHubHTTPError as error:
        raise SourceUnreachable(f"{ENDPOINT} {_answer(error, repository)}") from error
    except Exception as error:  # of whichever HTTP client the library's version uses; of the disk, too
        raise SourceUnreachable(f"The download of {repository}/{name} broke off ({_reason(error)}).") from error


def _answer(error: Any, repository: str) -> str:
    """Say what the Hub answered, and what to do."""
    status = error.response.status_code
    if status in (401, 403, 404):
        return (
            f"answered {status} for {repository}: there is no such repository or revision, or it is private or gated. "
            "Check the name; for a private or gated one, set HF_TOKEN."
        )
    if status == 429:
        return f"answered 429 for {repository}: too many requests. Try again in some minutes, or set HF_TOKEN."
    return f"answered {status} for {repository}. Try again later, or name a mirror in HF_ENDPOINT."


def _reason(error: Exception) -> str:
    """Return the first line of an error's text, or its class."""
    line = str(error).strip().partition("\n")[0][:200]
    return line if line and line.isprintable() else type(error).__name__


def _bar_class(progress: Progress) -> Any:
    """Return a class of progress bars for the library, which counts but draws nothing, and reports to ``progress``.

    The library may use two bars for one transfer, of what has arrived and of what is written: the larger one counts.
    """
    from huggingface_hub.utils.tqdm import tqdm

    most = 0

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": False, "file": io.StringIO()})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal most
            super().update(n)
            most = max(most, int(self.n))
            progress(most, None if self.total is None else int(self.total))
            return None

    return Bar
