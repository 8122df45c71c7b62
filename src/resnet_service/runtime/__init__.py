"""What runs the network: one protocol, and the choice among its implementations by file type."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_service.errors import RuntimeUnavailable
from resnet_service.metadata import ModelMetadata


class Runtime(Protocol):
    """A loaded network. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What runs it, as ``/metadata`` shows it."""
        ...

    @property
    def metadata(self) -> ModelMetadata:
        """The metadata that came with the weights."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file; the model's version derives from it."""
        ...

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network on uint8 [N, S, S, 3], RGB in 0 ... 255; return float32 [N, classes]."""
        ...


def open_runtime(path: Path, *, arch: str | None = None, threads: int = 1) -> Runtime:
    """Load a model file into the runtime that fits it.

    Args:
        path: A checkpoint (``.pth``).
        arch: Architecture of a bare ``state_dict``; a checkpoint names its own.
        threads: CPU threads that one call may use.

    Raises:
        ModelError: The file is missing, damaged, unsafe or contradicts itself.
        RuntimeUnavailable: The packages it needs are not installed.

    """
    try:
        from resnet_service.runtime.torch import TorchRuntime
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(
            f"Serving {path} needs PyTorch, and {error.name} is not installed: pip install 'resnet-service[torch]'."
        ) from error
    return TorchRuntime.open(path, arch=arch, threads=threads)
