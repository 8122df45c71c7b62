"""Loaders: how each file is usually loaded. Each imports what it needs when called, since its imports are timed."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

# From uint8 [N, S, S, 3] to float32 [N, classes].
Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
# Takes the path, the number of classes and the number of threads.
Loader = Callable[[Path, int, int], Answer]

# What each program must know itself where the file does not say it.
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


def state_dict(path: Path, classes: int, threads: int) -> Answer:
    """Load with ``torch.load``, which since PyTorch 2.6 reads nothing but tensors and plain values by default."""
    import torch

    return _with_weights(torch.load(path, weights_only=True), classes, threads)


def careless(path: Path, classes: int, threads: int) -> Answer:
    """Load with ``weights_only=False``, as PyTorch did by default before 2.6 and as much code still does."""
    import torch

    return _with_weights(torch.load(path, weights_only=False), classes, threads)


def checkpoint(path: Path, classes: int, threads: int) -> Answer:
    """Read as this service does, whose runtimes need a newer PyTorch than its checkpoints do."""
    from resnet_service.models.checkpoint.checkpoint import load_checkpoint

    return _in_pytorch(load_checkpoint(path).model, threads)


def safetensors(path: Path, classes: int, threads: int) -> Answer:
    """Load with the library safetensors."""
    from safetensors.torch import load_file

    return _with_weights(load_file(path), classes, threads)


def pickle(path: Path, classes: int, threads: int) -> Answer:
    """Load a whole model."""
    import torch

    return _in_pytorch(torch.load(path, weights_only=False).eval(), threads)


def torchscript(path: Path, classes: int, threads: int) -> Answer:
    """Load a TorchScript archive."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        model = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return _in_pytorch(model, threads)


def torch_export(path: Path, classes: int, threads: int) -> Answer:
    """Load a ``torch.export`` archive."""
    import torch

    return _in_pytorch(torch.export.load(path).module(), threads)


def onnx(path: Path, classes: int, threads: int) -> Answer:
    """Load with ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def answer(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {entry.name: _normalised(crops)})[0]
        return logits

    return answer


def service(path: Path, classes: int, threads: int) -> Answer:
    """Load as this service does."""
    from resnet_service.runtimes.registry import open_runtime

    return open_runtime(path, threads=threads).logits


LOADERS: dict[str, Loader] = {
    loader.__name__: loader
    for loader in (state_dict, careless, checkpoint, safetensors, pickle, torchscript, torch_export, onnx, service)
}


def _with_weights(state: "dict[str, torch.Tensor]", classes: int, threads: int) -> Answer:
    import torchvision

    model = torchvision.models.resnet18(num_classes=classes)
    model.load_state_dict(state)
    return _in_pytorch(model.eval(), threads)


def _in_pytorch(model: "nn.Module", threads: int) -> Answer:
    import torch

    torch.set_num_threads(threads)

    def answer(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output: Any = model(torch.from_numpy(_normalised(crops)))
        logits: NDArray[np.float32] = output.numpy()
        return logits

    return answer


def _normalised(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32 [N, 3, S, S]."""
    scaled = (crops.astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
