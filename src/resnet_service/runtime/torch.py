"""The reference runtime: a checkpoint, run by PyTorch as it is."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from resnet_service.metadata import ModelMetadata
from resnet_service.prepare.checkpoint import Checkpoint, load_checkpoint
from resnet_service.preprocess import normalise


class TorchRuntime:
    """A checkpoint's model in eager PyTorch on the CPU, in the channels-last layout that its kernels prefer."""

    name = "torch"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.metadata: ModelMetadata = checkpoint.metadata
        self.sha256: str = checkpoint.sha256
        self._model = checkpoint.model.to(memory_format=torch.channels_last)

    @classmethod
    def open(cls, path: Path, *, arch: str | None = None, threads: int = 1) -> Self:
        """Load ``path``; each call of ``logits`` uses ``threads`` CPU threads.

        The number of threads is PyTorch's, and thus the process's.
        """
        torch.set_num_threads(threads)
        return cls(load_checkpoint(path, arch=arch))

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network on uint8 [N, S, S, 3]; return float32 [N, classes]."""
        # NHWC memory seen as NCHW is just what channels-last means: nothing is copied.
        pixels = torch.from_numpy(normalise(crops, self.metadata)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            output: NDArray[np.float32] = self._model(pixels).numpy()
        return output
