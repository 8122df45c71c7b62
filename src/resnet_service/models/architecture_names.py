"""Names of architectures as people write them, and the names that they stand for."""

import difflib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from resnet_service.errors import UnknownArchitecture, install_hint
from resnet_service.models import networks
from resnet_service.types import EXPORTED_SUFFIX

INSTALL_PYTORCH = f"Others need PyTorch. {install_hint('torch')}"

_TIMM = "timm/"
_MAX_NAME = 100
_MAX_SIMILAR = 5


def resolve(name: str) -> tuple[str, ...]:
    """Return the architectures that a name may stand for, the likeliest first; ``()`` if none.

    Case, hyphens, underscores and a prefix such as ``timm/`` or ``torchvision.models.`` do not matter. A name that
    torchvision and timm have stands for both; ``timm/NAME`` for timm's only.
    """
    wanted, wanted_name = _squeezed(name), name.removeprefix("torchvision.models.")
    if not wanted or len(name) > _MAX_NAME:
        return ()
    exact = [known for known in known_names() if known == name]
    found = exact or [known for known in known_names() if _squeezed(known) == wanted]
    if not found and "." in wanted_name:  # timm's names of weights: resnet18.a1_in1k
        return resolve(wanted_name.partition(".")[0])
    if name.lower().startswith(_TIMM):
        found = [known for known in found if known.startswith(_TIMM)] or found
    elif exact:
        found += [known for known in known_names() if known == _TIMM + name]
    return tuple(found)


def resolve_given(name: str, option: str = "--arch") -> tuple[str, ...]:
    """Return the architectures that the value of an option stands for.

    Raises:
        UnknownArchitecture: None; the message has the nearest names.

    """
    found = resolve(name)
    if found:
        return found
    given = f"{option} {name[:_MAX_NAME]}"
    if not _pytorch_names():
        raise UnknownArchitecture(
            f"{given} is none of the architectures known without PyTorch: {', '.join(networks.ARCHITECTURES)}. "
            f"{INSTALL_PYTORCH}"
        )
    similar = nearest(name, known_names())
    hint = f"The nearest are {', '.join(similar)}." if similar else "Name one of torchvision's or timm's classifiers."
    raise UnknownArchitecture(f"{given}: there is no such architecture. {hint}")


def without_pytorch() -> str:
    """Return the sentence on installing PyTorch where it is not installed, else nothing."""
    return "" if _pytorch_names() else INSTALL_PYTORCH


def canonical(name: str, option: str = "--arch") -> str:
    """Return the likeliest architecture that the value of an option stands for.

    PyTorch is imported only for names other than those of ``networks``.

    Raises:
        UnknownArchitecture: None; the message has the nearest names.

    """
    timm = name.lower().startswith(_TIMM)
    for known in networks.ARCHITECTURES:
        if name == known or (_squeezed(name) == _squeezed(known) and timm <= known.startswith(_TIMM)):
            return known
    return resolve_given(name, option)[0]


def canonical_for(path: Path, name: str | None) -> str | None:
    """Return the architecture that is given for a model file, by its own name; errors as of ``canonical``.

    Exported models name their own, so that what is given for them is not looked at.
    """
    return name if name is None or path.suffix == EXPORTED_SUFFIX else canonical(name)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that are most like ``name``."""
    by_squeezed: dict[str, str] = {}
    for one in known:
        by_squeezed.setdefault(_squeezed(one), one)
    close = difflib.get_close_matches(_squeezed(name[:_MAX_NAME]), by_squeezed, n=_MAX_SIMILAR, cutoff=0.7)
    return [by_squeezed[one] for one in close]


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2].removeprefix("torchvision.models."))


@cache
def known_names() -> tuple[str, ...]:
    """Return the names of all architectures; without PyTorch, of those known without it."""
    return tuple(dict.fromkeys((*networks.ARCHITECTURES, *_pytorch_names())))


@cache
def _pytorch_names() -> tuple[str, ...]:
    try:
        from resnet_service.models import architectures
    except ModuleNotFoundError:
        return ()
    return architectures.names()
