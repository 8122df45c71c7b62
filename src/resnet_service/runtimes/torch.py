"""The PyTorch runtimes: a checkpoint as it is, and two optimisations that tutorials recommend.

`docs/benchmarks` has their speed; neither comes near an exported model.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnet_service.imaging.preprocess import normalise
from resnet_service.models.checkpoint.checkpoint import Checkpoint, load_checkpoint
from resnet_service.models.metadata import ModelMetadata, Outputs
from resnet_service.models.traced import UntraceableModel, trace
from resnet_service.runtimes.base import Features
from resnet_service.types import Precision, RuntimeName

Forward = Callable[[Tensor], Tensor]


class Optimisation(NamedTuple):
    """An optimisation within PyTorch; the optimised network still takes float32 [N, 3, S, S] and gives logits."""

    name: RuntimeName
    precision: Precision
    apply: Callable[[nn.Module, Tensor], Forward]


class TorchRuntime:
    """A checkpoint's model in PyTorch on the CPU, in the channels-last layout that its kernels prefer."""

    def __init__(self, checkpoint: Checkpoint, optimisation: Optimisation) -> None:
        self.name = optimisation.name
        self.prefetch = 0  # PyTorch computes in the caller's thread
        self.precision: Precision = optimisation.precision
        self.metadata: ModelMetadata = checkpoint.metadata
        self.sha256: str = checkpoint.sha256
        side = checkpoint.metadata.input_size
        example = torch.zeros(1, 3, side, side).to(memory_format=torch.channels_last)
        model = checkpoint.model.to(memory_format=torch.channels_last)
        self._forward = optimisation.apply(model, example)
        self.outputs = Outputs()
        self.logits_only = ""
        self.class_weights: NDArray[np.float32] | None = None
        if optimisation.apply is not _unchanged:
            # An optimised network has no embedding output, and the original one's embedding would not match its scores.
            self.logits_only = f"The runtime {self.name} gives scores only; serve the model with another runtime."
            return
        try:
            self._features, self.outputs, weights = trace(model, torch.cat([example, example]))
        except UntraceableModel:
            self.logits_only = f"PyTorch cannot trace {self.metadata.arch}, so it gives scores only."
        else:
            self.class_weights = None if weights is None else weights.numpy()

    @classmethod
    def open(cls, path: Path, optimisation: Optimisation, *, arch: str | None = None, threads: int = 1) -> Self:
        """Load ``path``; each call of ``logits`` uses ``threads`` CPU threads.

        The number of threads is a setting of the whole process.
        """
        torch.set_num_threads(threads)
        return cls(load_checkpoint(path, arch=arch), optimisation)

    def logits(self, crops: NDArray[np.uint8], *, prefer_latency: bool = True) -> NDArray[np.float32]:
        """Run the network on uint8 [N, S, S, 3]; return float32 [N, classes].

        ``prefer_latency`` changes nothing: PyTorch's number of threads cannot be chosen for one call.
        """
        with torch.inference_mode():
            output: NDArray[np.float32] = self._forward(self._tensor(crops)).numpy()
        return output

    def features(self, pixels: NDArray[np.uint8], *, prefer_latency: bool = True) -> Features:
        """Run the network on uint8 [S, S, 3]; return logits, embedding and feature map."""
        with torch.inference_mode():
            logits, embedding, *feature_maps = (
                output[0].numpy() for output in self._features(self._tensor(pixels[np.newaxis]))
            )
        return Features(logits, embedding, feature_maps[0] if feature_maps else None)

    def _tensor(self, crops: NDArray[np.uint8]) -> Tensor:
        # NHWC memory viewed as NCHW is the channels-last layout: nothing is copied.
        return torch.from_numpy(normalise(crops, self.metadata)).permute(0, 3, 1, 2)


def _unchanged(model: nn.Module, example: Tensor) -> Forward:
    return model


def _torchscript(model: nn.Module, example: Tensor) -> Forward:
    """Trace, freeze and optimise in this process; TorchScript archives carry code and are never loaded."""
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript is deprecated; this runtime goes when PyTorch removes it.
        warnings.filterwarnings("ignore", message=".*deprecated")
        frozen = torch.jit.freeze(torch.jit.trace(model, example))  # type: ignore[no-untyped-call]
        optimised: Forward = torch.jit.optimize_for_inference(frozen)
        for _ in range(2):  # the profiling executor specialises in the first runs
            optimised(example)
    return optimised


def _dynamic_int8(model: nn.Module, example: Tensor) -> Forward:
    """Quantize the weights of linear layers: of a ResNet-18, 0.5 of 11.7 million weights."""
    with warnings.catch_warnings():
        # torch.ao.quantization is deprecated, too.
        warnings.filterwarnings("ignore", message=".*deprecated")
        quantized: Forward = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {nn.Linear}, dtype=torch.qint8
        )
    return quantized


OPTIMISATIONS: Mapping[RuntimeName, Optimisation] = MappingProxyType(
    {
        optimisation.name: optimisation
        for optimisation in (
            Optimisation("torch", "fp32", _unchanged),
            Optimisation("torchscript", "fp32", _torchscript),
            Optimisation("torch-dynamic-int8", "int8", _dynamic_int8),
        )
    }
)
