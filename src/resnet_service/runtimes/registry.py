"""The choice of the runtime for a model file."""

from collections.abc import Callable
from pathlib import Path

from resnet_service.errors import RuntimeUnavailable, UnsuitableRuntime, install_hint
from resnet_service.models.checkpoint.weights import needs_pytorch
from resnet_service.models.file_kinds import check_model_kind
from resnet_service.models.networks import ARCHITECTURES
from resnet_service.runtimes.base import Runtime
from resnet_service.system.imports import import_blocked
from resnet_service.types import EXPORTED_SUFFIX, RuntimeName

# Takes path, architecture or None, workers, threads.
Opener = Callable[[Path, str | None, int, int], Runtime]


def open_runtime(
    path: Path, runtime: RuntimeName = "auto", *, arch: str | None = None, workers: int = 1, threads: int = 0
) -> Runtime:
    """Load a model file into a runtime.

    Args:
        path: A checkpoint (``.safetensors``, ``.pth``), or an exported model (``.onnx``).
        runtime: ``auto`` is ``openvino`` for exported models and for checkpoints of an architecture in
            ``networks``; for other checkpoints it is ``torch``.
        arch: Architecture of a bare ``state_dict``; checkpoints and exported models name their own.
        workers: Inferences to run at once.
        threads: CPU threads of one call; 0 lets the runtime choose.

    Raises:
        ModelError: The file is missing, damaged, unsafe or contradicts itself.
        UnsuitableRuntime: The runtime does not run this kind of file.
        RuntimeUnavailable: The packages it needs are not installed.

    """
    return find_runtime(path, runtime, arch)(path, arch, workers, threads)


def find_runtime(path: Path, runtime: RuntimeName = "auto", arch: str | None = None) -> Opener:
    """Import the runtime for a file and return its opener; arguments and errors as for ``open_runtime``."""
    exported = path.suffix == EXPORTED_SUFFIX
    if exported:
        check_model_kind(path)
    only_pytorch = not exported and needs_pytorch(path, arch)
    chosen = ("torch" if only_pytorch else "openvino") if runtime == "auto" else runtime
    if chosen == "openvino":
        if only_pytorch:
            raise UnsuitableRuntime(
                f"The runtime openvino runs exported models ({EXPORTED_SUFFIX}), and checkpoints of "
                f"{', '.join(ARCHITECTURES)}. {path} is neither; export it first: resnet-service export {path}"
            )
        return _openvino(path)
    if exported:
        raise UnsuitableRuntime(
            f"The runtime {chosen} cannot run the exported model {path}; use the runtime openvino, or the checkpoint "
            "that the model was exported from."
        )
    return _pytorch(path, chosen)


def _openvino(path: Path) -> Opener:
    try:
        # OpenVINO's model converter is unused here and takes half of the import time.
        with import_blocked("openvino.tools.ovc"):
            from resnet_service.runtimes.openvino import OpenVINORuntime
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(f"Serving {path} needs the package {error.name}: pip install openvino.") from error
    if path.suffix != EXPORTED_SUFFIX:
        # Imported before the thread that loads the model starts; see ``ModelLoader``.
        import resnet_service.models.graphs  # noqa: F401
    return lambda path, arch, workers, threads: OpenVINORuntime.open(path, arch=arch, workers=workers, threads=threads)


def _pytorch(path: Path, chosen: RuntimeName) -> Opener:
    try:
        from resnet_service.runtimes.torch import OPTIMISATIONS, TorchRuntime
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(
            f"Serving {path} needs PyTorch, and {error.name} is not installed. Serve an exported model, which needs no "
            f"PyTorch; or install it. {install_hint('torch')}"
        ) from error
    optimise = OPTIMISATIONS[chosen]
    return lambda path, arch, workers, threads: TorchRuntime.open(path, optimise, arch=arch, threads=threads or 1)
