"""Where images lie and results go: local paths and fsspec's URLs, one interface for both."""

from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from resnet_service.errors import BatchError, InvalidBatchInput


class Place(NamedTuple):
    """A file system of fsspec, and a path on it; ``local`` where it is this machine's."""

    filesystem: Any
    path: str
    local: bool

    def url(self, path: str) -> str:
        """Return how ``path`` on the same file system is named outside: absolute if local, with protocol if not."""
        return path if self.local else str(self.filesystem.unstrip_protocol(path))


def locate(url: str, refusal: type[BatchError] = InvalidBatchInput) -> Place:
    """Find the file system that ``url`` means; a local path becomes absolute.

    Raises:
        BatchError: Of the kind ``refusal``: no such protocol, or its package is not installed, or not its syntax.

    """
    local = "://" not in url
    try:
        filesystem, path = fsspec.core.url_to_fs(str(Path(url).absolute()) if local else url)
    except (ImportError, ValueError, OSError) as error:
        raise refusal(f"{url} cannot be reached: {error}.") from error
    return Place(filesystem, str(path), local or "file" in _protocols(filesystem))


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
