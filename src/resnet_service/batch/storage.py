"""File systems of input and output: local paths and fsspec URLs behind one interface."""

from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from resnet_service.errors import BatchError, InvalidBatchInput


class Location(NamedTuple):
    """An fsspec file system and a path on it; ``local`` if it is this machine's."""

    filesystem: Any
    path: str
    local: bool

    def url(self, path: str) -> str:
        """Return the URL of ``path`` on the same file system: an absolute path if local, else with protocol."""
        return path if self.local else str(self.filesystem.unstrip_protocol(path))


def locate(url: str, refusal: type[BatchError] = InvalidBatchInput) -> Location:
    """Return the file system and path of ``url``; a local path becomes absolute.

    Raises:
        BatchError: Of the class ``refusal``: unknown protocol, missing package, or invalid URL.

    """
    local = "://" not in url
    try:
        filesystem, path = fsspec.core.url_to_fs(str(Path(url).absolute()) if local else url)
    except (ImportError, ValueError, OSError) as error:
        raise refusal(f"{url} cannot be reached: {error}.") from error
    return Location(filesystem, str(path), local or "file" in _protocols(filesystem))


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
