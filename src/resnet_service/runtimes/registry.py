"""Which runtime opens which model file."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from resnet_service.errors import RuntimeUnavailable, UnsuitableRuntime
from resnet_service.models.exported import SUFFIX
from resnet_service.runtimes.base import Runtime
from resnet_service.system.files import check_model_file
from resnet_service.system.imports import without

RuntimeName = Literal["auto", "openvino", "torch", "torchscript", "torch-dynamic-int8"]


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
                from resnet_service.runtimes.openvino import OpenVINORuntime
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
        from resnet_service.runtimes.torch import OPTIMISATIONS, TorchRuntime
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(
            f"Serving {path} needs PyTorch, and {error.name} is not installed: pip install 'resnet-service[torch]', "
            "or serve a packed model, which needs none."
        ) from error
    optimise = OPTIMISATIONS[chosen]
    return lambda path, arch, workers, threads: TorchRuntime.open(path, optimise, arch=arch, threads=threads or 1)
