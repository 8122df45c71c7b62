"""What runs the network: one protocol, and the choice among its implementations."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_service.errors import RuntimeUnavailable, UnsuitableRuntime
from resnet_service.models.exported import SUFFIX
from resnet_service.models.metadata import ModelMetadata, Outputs, Precision
from resnet_service.system.files import check_model_file
from resnet_service.system.imports import without

RuntimeName = Literal["auto", "openvino", "torch", "torchscript", "torch-dynamic-int8"]


class Features(NamedTuple):
    """What a network makes of one picture, all float32.

    ``logits`` [classes]; ``embedding`` [D], what its last linear layer takes; ``feature_map`` [D, h, w], the last one,
    whose mean over h and w is the embedding, or ``None`` of networks that do not end so.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    feature_map: NDArray[np.float32] | None


class Runtime(Protocol):
    """A loaded network. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What runs it, as ``/metadata`` shows it."""
        ...

    @property
    def precision(self) -> Precision:
        """What it computes in; with ``int8``, what is not quantized is FP32."""
        ...

    @property
    def metadata(self) -> ModelMetadata:
        """The metadata that came with the weights."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file; the model's version derives from it."""
        ...

    @property
    def ahead(self) -> int:
        """Calls that it can queue beyond its workers, lest threads of its own stand idle; 0 where it has none."""
        ...

    def logits(self, crops: NDArray[np.uint8], *, alone: bool = True) -> NDArray[np.float32]:
        """Run the network.

        Args:
            crops: uint8 [N, S, S, 3], RGB in 0 ... 255.
            alone: No other picture is being worked on, so that all CPUs may be spent on this one.

        Returns:
            float32 [N, classes].

        """
        ...

    @property
    def outputs(self) -> Outputs:
        """What ``features`` gives besides logits."""
        ...

    @property
    def logits_only(self) -> str:
        """Why that is nothing, where it is not the network's own nature: a sentence for clients; else empty."""
        ...

    @property
    def class_weights(self) -> NDArray[np.float32] | None:
        """The last linear layer's weights as they are multiplied with, float32 [classes, D], if there are maps."""
        ...

    def features(self, pixels: NDArray[np.uint8], *, alone: bool = True) -> Features:
        """Run the network on one picture, uint8 [S, S, 3]; only where ``outputs`` has an embedding."""
        ...


# Of a path, an architecture or none, workers and threads.
Opener = Callable[[Path, str | None, int, int], Runtime]


def open_runtime(
    path: Path, runtime: RuntimeName = "auto", *, arch: str | None = None, workers: int = 1, threads: int = 0
) -> Runtime:
    """Load a model file into a runtime.

    Args:
        path: A checkpoint (``.pth``), or a packed model (``.onnx``).
        runtime: ``auto`` is ``openvino`` for packed models and ``torch`` for checkpoints.
        arch: Architecture of a bare ``state_dict``; checkpoints and packed models name their own.
        workers: Networks that are computed at once.
        threads: CPU threads for one call; 0 for the best that the runtime can do.

    Raises:
        ModelError: The file is missing, damaged, unsafe or contradicts itself.
        UnsuitableRuntime: That runtime does not run this kind of file.
        RuntimeUnavailable: The packages it needs are not installed.

    """
    return find_runtime(path, runtime)(path, arch, workers, threads)


def find_runtime(path: Path, runtime: RuntimeName = "auto") -> Opener:
    """Import what ``open_runtime`` will need for this file, and return what opens it; arguments and errors as there."""
    packed = path.suffix == SUFFIX
    chosen = ("openvino" if packed else "torch") if runtime == "auto" else runtime
    if chosen == "openvino":
        if not packed:
            raise UnsuitableRuntime(
                f"The runtime openvino runs packed models ({SUFFIX}), and {path} is not one; "
                f"pack it first: resnet-service pack {path}"
            )
        check_model_file(path)
        try:
            with without("openvino.tools.ovc"):  # its converter of models: unused here, and half of the import's time
                from resnet_service.runtime.openvino import OpenVINORuntime
        except ModuleNotFoundError as error:
            raise RuntimeUnavailable(f"Serving {path} needs the package {error.name}: pip install openvino.") from error
        return lambda path, arch, workers, threads: OpenVINORuntime.open(path, workers=workers, threads=threads)
    if packed:
        raise UnsuitableRuntime(
            f"{path} is a packed model, which the runtime openvino runs; the runtime {chosen} needs the checkpoint "
            "that it was packed from."
        )
    check_model_file(path)
    try:
        from resnet_service.runtime.torch import OPTIMISATIONS, TorchRuntime
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(
            f"Serving {path} needs PyTorch, and {error.name} is not installed: pip install 'resnet-service[torch]', "
            "or serve a packed model, which needs none."
        ) from error
    optimise = OPTIMISATIONS[chosen]
    return lambda path, arch, workers, threads: TorchRuntime.open(path, optimise, arch=arch, threads=threads or 1)
