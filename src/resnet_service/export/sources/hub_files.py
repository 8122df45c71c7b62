"""The files of a repository of the Hugging Face Hub: read from the cache of its library, or transferred within limits.

Nothing here writes a file: the library's own downloads take names of files from headers of the server.
"""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from resnet_service.errors import SourceUnreachable, SuspiciousModel
from resnet_service.export.sources.base import within
from resnet_service.system.files import MAX_MODEL_BYTES, sha256_of
from resnet_service.types import Progress

RESPONSE_SECONDS = 6
MAX_CONFIG_BYTES = 4_000_000  # of 21,841 classes with their names, a config.json has 1.5 MB

_CONFIG_SECONDS = 30
_STALL_SECONDS = 10  # between two chunks of a transfer
_TRIES = 4
_MAX_REDIRECTS = 5

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class FoundFile(NamedTuple):
    """A file of a repository: its commit, the SHA-256 of its bytes, and their number if it is known."""

    commit: str
    sha256: str
    size: int | None


def find_file(repository: str, name: str, revision: str | None = None, sha256: str | None = None) -> FoundFile | None:
    """Ask for a file's commit and digest, in one request; ``None`` if the repository has none of that name.

    If the digest is known, and with ``HF_HUB_OFFLINE``, a file that timm or transformers left in the cache needs no
    request.

    Raises:
        SourceUnreachable: No answer in time, a refusal, or no commit or SHA-256 in the answer.
        SuspiciousModel: The file is larger than ``MAX_MODEL_BYTES``.

    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import EntryNotFoundError

    cached = _cached(repository, name, revision or "main") if sha256 or HF_HUB_OFFLINE else None
    # A file in the cache, snapshots/COMMIT/NAME, is a link to blobs/SHA-256.
    if cached is not None:
        stored = FoundFile(cached.parent.name, cached.resolve().name, None)
        if _COMMIT.fullmatch(stored.commit) and _SHA256.fullmatch(stored.sha256) and sha256 in (None, stored.sha256):
            return stored
    url = hf_hub_url(repository, name, revision=revision)
    try:
        head = _call(repository, lambda: get_hf_file_metadata(url, timeout=RESPONSE_SECONDS))
    except EntryNotFoundError:
        return None
    if not _COMMIT.fullmatch(head.commit_hash or "") or not _SHA256.fullmatch(head.etag or "") or head.size is None:
        raise SourceUnreachable(
            f"{_endpoint()} does not state commit, SHA-256 and size of {repository}/{name}, as the Hugging Face Hub "
            "and its mirrors do."
        )
    if head.size > MAX_MODEL_BYTES:
        raise SuspiciousModel(f"{repository}/{name} has {head.size:,} bytes; the limit is {MAX_MODEL_BYTES:,}.")
    return FoundFile(str(head.commit_hash), str(head.etag), head.size)


def read_config(repository: str, name: str, revision: str) -> bytes | None:
    """Return a file of at most ``MAX_CONFIG_BYTES``; ``None`` if the repository has none of that name."""
    from huggingface_hub import hf_hub_url

    cached = _cached(repository, name, revision)
    if cached is not None:
        with cached.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise _too_large(f"{repository}/{name}", MAX_CONFIG_BYTES)
        return data
    return _transfer(repository, name, hf_hub_url(repository, name, revision=revision))


def read_file(repository: str, name: str, found: FoundFile, progress: Progress) -> bytes:
    """Return the bytes of a file, whose digest is still to be compared; a transfer that breaks off is resumed."""
    from huggingface_hub import hf_hub_url

    cached = _cached(repository, name, found.commit)
    if cached is not None and cached.stat().st_size <= MAX_MODEL_BYTES:
        data = cached.read_bytes()
        if sha256_of(data) == found.sha256:
            return data
    url = hf_hub_url(repository, name, revision=found.commit)
    transferred = _transfer(repository, name, url, found.size or MAX_MODEL_BYTES, found.size, None, progress)
    if transferred is None:
        raise SourceUnreachable(f"{_endpoint()} has no {repository}/{name} of the commit that it stated.")
    return transferred


def list_files(repository: str) -> list[str]:
    """Return the names of a repository's files; none if the answer is not as the Hub's."""
    name = "list of files"
    data = _transfer(repository, name, f"{_endpoint()}/api/models/{repository}")
    try:
        siblings = json.loads(data or b"{}")["siblings"]
        return sorted(str(sibling["rfilename"]) for sibling in siblings)
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _transfer(
    repository: str,
    name: str,
    url: str,
    limit: int = MAX_CONFIG_BYTES,
    size: int | None = None,
    seconds: float | None = _CONFIG_SECONDS,
    progress: Progress = lambda done, total, speed="": None,
) -> bytes | None:
    """Return the bytes at ``url``, of which no more than ``limit`` are read; ``None`` if there is no such file."""
    begin = time.monotonic()
    data = bytearray()
    reason = f"{size} bytes were expected"
    for _ in range(_TRIES):
        response = _call(repository, partial(_open, url, len(data)))
        try:
            if response.status_code == 404 and response.headers.get("X-Error-Code") == "EntryNotFound":
                return None
            if response.status_code not in (200, 206):
                raise SourceUnreachable(f"{_endpoint()} {_answer(response.status_code, repository)}")
            if response.status_code == 200:
                data.clear()
            for chunk in response.iter_raw():  # as it was sent: what is compressed could become any size
                data += chunk
                if len(data) > limit:
                    raise _too_large(f"{repository}/{name}", limit)
                if seconds is not None and time.monotonic() - begin > seconds:
                    raise SourceUnreachable(f"{repository}/{name} did not arrive within {seconds:.0f} seconds.")
                progress(len(data), size)
            if size is None or len(data) == size:
                return bytes(data)
        except (SourceUnreachable, SuspiciousModel):
            raise
        except Exception as error:  # noqa: BLE001 - of whichever HTTP client the library's version uses
            reason = _reason(error)
        finally:
            response.close()
    raise SourceUnreachable(f"The download of {repository}/{name} broke off after {len(data):,} bytes ({reason}).")


def _open(url: str, start: int) -> Any:
    """Return the response of the library's client, from the byte ``start`` on, before its body is read.

    Redirects are followed here, since the client would read their bodies whole. It sends the token to no other host.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # documented, but not in __all__

    session = get_session()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = session.build_request("GET", url, headers=headers, timeout=_STALL_SECONDS)
    for _ in range(_MAX_REDIRECTS + 1):
        response = session.send(request, stream=True, follow_redirects=False)
        if response.next_request is None:
            return response
        response.close()
        request = response.next_request
    raise SourceUnreachable(f"{_endpoint()} redirects more than {_MAX_REDIRECTS} times.")


def _cached(repository: str, name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _call(repository: str, call: Callable[[], T]) -> T:
    """Make one request within ``RESPONSE_SECONDS``; turn all errors but that of a missing file into ours.

    In a thread, since none of the client's own limits holds for all of it; see ``within``.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    try:
        return within(RESPONSE_SECONDS, call)
    except (EntryNotFoundError, SourceUnreachable):
        raise
    except HfHubHTTPError as error:
        raise SourceUnreachable(f"{_endpoint()} {_answer(error.response.status_code, repository)}") from error
    except OfflineModeIsEnabled as error:
        raise SourceUnreachable(f"{repository} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it.") from error
    except TimeoutError as error:
        raise _unreachable(f"no answer within {RESPONSE_SECONDS} seconds") from error
    except Exception as error:  # of whichever HTTP client the library's version uses
        raise _unreachable(_reason(error)) from error


def _endpoint() -> str:
    from huggingface_hub.constants import ENDPOINT

    return str(ENDPOINT)


def _unreachable(reason: str) -> SourceUnreachable:
    return SourceUnreachable(
        f"{_endpoint()} cannot be reached ({reason}). Check the network, or name a mirror of the Hub in HF_ENDPOINT."
    )


def _too_large(where: str, limit: int) -> SuspiciousModel:
    return SuspiciousModel(f"{where} has more bytes than {limit:,}, which is the limit.")


def _answer(status: int, repository: str) -> str:
    """Say what the Hub answered, and what to do."""
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
