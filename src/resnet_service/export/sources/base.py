"""What all sources of weights share: the request, the result, downloads within time limits, and writing.

A source is a module beside this one with the three functions of ``Source``, named in ``types.WeightsSource``.
"""

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from resnet_service.errors import SourceUnreachable
from resnet_service.export.sources.catalog import DEFAULT_ARCH, IMAGENET, checkpoint_stem
from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.checkpoint.weights import save_state
from resnet_service.models.labels import find_label_file, read_label_set
from resnet_service.models.metadata import LabelSetReference, ModelMetadata
from resnet_service.system.files import MAX_MODEL_BYTES
from resnet_service.types import SAFETENSORS_SUFFIX, Progress

RESPONSE_SECONDS = 10

_CHUNK = 1 << 18

T = TypeVar("T")


@dataclass(frozen=True)
class PullRequest:
    """What to fetch.

    Args:
        name: An architecture, by torchvision's name or as ``timm/NAME``; or a repository of the Hugging Face Hub.
            ``None`` is the default request: ResNet-18, or what the first source that responds has instead.
        folder: Folder for the checkpoint.
        mirror: Folder URL of a mirror of torchvision's files, which ``auto`` tries first; ``None`` for the original.
        on_message: Called with each message; see ``cli.console.message``.
        progress: Called for each chunk, with the bytes so far and in total.

    """

    name: str | None
    folder: Path
    mirror: str | None = None
    on_message: Callable[[str], None] = lambda _: None
    progress: Progress = lambda done, total, speed="": None

    @property
    def wanted(self) -> str:
        """The architecture or repository."""
        return self.name or DEFAULT_ARCH


class Pulled(NamedTuple):
    """A fetched checkpoint and its metadata."""

    path: Path
    metadata: ModelMetadata


class Source(Protocol):
    """A module that fetches weights from one place."""

    def describe(self, request: PullRequest) -> str:
        """Say what ``fetch`` brings, as in "Fetching instead: …"."""
        ...

    def check(self, request: PullRequest) -> None:
        """Check, without the network, that this source can serve the request.

        Raises:
            UnknownArchitecture: It has nothing of this name.
            RuntimeUnavailable: The file could be fetched, but not read with the packages that are installed.
            ModuleNotFoundError: A package that this source needs is not installed.

        """
        ...

    def fetch(self, request: PullRequest) -> Pulled:
        """Fetch and check the weights, and write them as a checkpoint; errors as for ``pull``."""
        ...


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return ``call()``; raise ``TimeoutError`` if it takes longer.

    The limits of HTTP clients hold for each address of a host, and none holds for the look-up of its name. The thread
    of a call that takes longer is left to end by itself.
    """
    future: Future[T] = Future()
    threading.Thread(target=_settle, args=(future, call), daemon=True).start()
    try:
        return future.result(seconds)
    finally:
        del future  # an error refers to this frame by its traceback, and the future to the error


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
        future.set_exception(error)


def download(url: str, progress: Progress) -> bytes:
    """Return the bytes at ``url``; raise ``SourceUnreachable`` within seconds if the host does not respond."""
    try:
        with within(RESPONSE_SECONDS, lambda: _open(url)) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            if total is not None and not 0 <= total <= MAX_MODEL_BYTES:
                raise SourceUnreachable(f"{url} announces more than {MAX_MODEL_BYTES:,} bytes, which is the limit.")
            received = bytearray()
            while chunk := response.read(_CHUNK):
                received += chunk
                if len(received) > MAX_MODEL_BYTES:
                    raise SourceUnreachable(f"{url} sent more than {MAX_MODEL_BYTES:,} bytes.")
                progress(len(received), total)
    except urllib.error.HTTPError as error:
        error.close()
        raise SourceUnreachable(f"{url} answered {error.code} {error.reason}.") from error
    except TimeoutError as error:
        raise SourceUnreachable(f"{url} cannot be reached (no answer within {RESPONSE_SECONDS} seconds).") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceUnreachable(f"{url} cannot be reached ({reason}).") from error
    if total is not None and len(received) != total:
        raise SourceUnreachable(f"The download of {url} broke off after {len(received):,} of {total:,} bytes.")
    return bytes(received)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects without their bodies, which urllib reads whole."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> http.client.HTTPResponse:
    # The scheme is the user's own choice (https by default, file or http for a mirror).
    response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(url, timeout=RESPONSE_SECONDS)
    return response


def imagenet_labels(folder: Path) -> LabelSetReference:
    """Return the reference to ImageNet's label set, as a checkpoint in ``folder`` carries it."""
    return read_label_set(find_label_file(IMAGENET, folder / "model"))[1]


def checkpoint_path(request: PullRequest, name: str) -> Path:
    """Return the path of the checkpoint of an architecture or a repository."""
    return request.folder / f"{checkpoint_stem(name)}{SAFETENSORS_SUFFIX}"


def write(state: Mapping[str, Array], metadata: ModelMetadata, path: Path) -> Pulled:
    """Check weights and write them as a safetensors checkpoint, whole or not at all.

    Without PyTorch, if the architecture is one of ``networks.ARCHITECTURES``; the others are built to be checked.

    Args:
        state: Arrays of float32 or int64 by their keys in the ``state_dict``; counters of batch norms may be missing.
        metadata: Goes into the file.
        path: Where to write.

    """
    save_state(state, path, metadata)
    return Pulled(path, metadata)
