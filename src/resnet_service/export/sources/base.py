"""What all sources of weights share: the request, the result, downloads.

A source is a module beside this one with the two functions of ``Source``, named in ``types.WeightsSource``.
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import nn

from resnet_service.errors import SourceUnreachable
from resnet_service.models.checkpoint.checkpoint import save_checkpoint
from resnet_service.models.labels import find_label_file, read_label_set
from resnet_service.models.metadata import LabelSetReference, ModelMetadata
from resnet_service.types import Progress

IMAGENET = "imagenet1k"  # the label set of all published weights, and part of their file names
RESPONSE_SECONDS = 10

_CHUNK = 1 << 18


@dataclass(frozen=True)
class PullRequest:
    """What to fetch.

    Args:
        arch: Architecture, by torchvision's name.
        folder: Folder for the checkpoint.
        mirror: Folder URL of a mirror of torchvision's files; ``None`` for the original.
        on_message: Called with each message, a sentence at a time.
        progress: Called for each chunk, with the bytes so far and in total.

    """

    arch: str
    folder: Path
    mirror: str | None = None
    on_message: Callable[[str], None] = lambda _: None
    progress: Progress = lambda done, total, speed="": None


class Pulled(NamedTuple):
    """A fetched checkpoint and its metadata."""

    path: Path
    metadata: ModelMetadata


class Source(Protocol):
    """A module that fetches weights from one place."""

    def describe(self, arch: str) -> str:
        """Say what ``fetch`` brings when it is asked for ``arch``."""
        ...

    def fetch(self, request: PullRequest) -> Pulled:
        """Fetch and check ImageNet weights, and write them as a checkpoint; errors as for ``pull``."""
        ...


def download(url: str, progress: Progress) -> bytes:
    """Return the bytes at ``url``; raise ``SourceUnreachable`` within seconds if the host does not respond."""
    try:
        # The scheme is the user's own choice (https by default, file or http for a mirror).
        with urllib.request.urlopen(url, timeout=RESPONSE_SECONDS) as response:  # noqa: S310
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
        raise SourceUnreachable(f"The download of {url} broke off after {len(received):,} of {total:,} bytes.")
    return bytes(received)


def imagenet_labels(folder: Path) -> LabelSetReference:
    """Return the reference to ImageNet's label set, as a checkpoint in ``folder`` carries it."""
    return read_label_set(find_label_file(IMAGENET, folder / "model"))[1]


def write(model: nn.Module, metadata: ModelMetadata, path: Path) -> Pulled:
    """Write the checkpoint, whole or not at all."""
    save_checkpoint(model, path, metadata)
    return Pulled(path, metadata)
