"""Fetch weights from a named source, or from the first that responds."""

from importlib import import_module
from itertools import pairwise
from typing import cast, get_args

from resnet_service.errors import SourceUnreachable
from resnet_service.export.sources.base import Pulled, PullRequest, Source
from resnet_service.types import WeightsSource

# In the order in which ``auto`` tries them.
SOURCES: tuple[WeightsSource, ...] = tuple(name for name in get_args(WeightsSource) if name != "auto")


def pull(source: WeightsSource, request: PullRequest) -> Pulled:
    """Fetch ImageNet weights, check them, and write them as a checkpoint.

    Raises:
        UnknownArchitecture: The source has no ImageNet weights for the architecture.
        SourceUnreachable: The source does not respond; for ``auto``, none does.
        SourceDigestMismatch: The downloaded bytes do not have the expected digest.

    """
    names = SOURCES if source == "auto" else (source,)
    for name, following in pairwise(names):
        try:
            return find_source(name).fetch(request)
        except SourceUnreachable as error:
            request.on_message(f"{error} Fetching instead: {find_source(following).describe(request.arch)}.")
    return find_source(names[-1]).fetch(request)


def find_source(name: WeightsSource) -> Source:
    """Import the module of a source; only then are the packages it needs imported."""
    return cast(Source, import_module(f"resnet_service.export.sources.{name}"))
