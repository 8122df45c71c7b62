"""The model file to use if none is named."""

from pathlib import Path

from resnet_service.errors import ModelFileNotFound
from resnet_service.types import CHECKPOINT_SUFFIXES, EXPORTED_SUFFIX

FOLDER = Path("checkpoints")

# These come with the repository, the last one only up to version 1.1. Users who pulled or trained another model want to
# serve that one.
_BUNDLED = (
    "resnet18-fashion-mnist-int8.onnx",
    "resnet18-fashion-mnist.safetensors",
    "resnet18-fashion-mnist.pth",
)


def choose_model(named: Path | None, folder: Path = FOLDER) -> Path:
    """Return the named model, else the newest in ``folder``, else the bundled one.

    Raises:
        ModelFileNotFound: No model is named and the folder has none.

    """
    if named is not None:
        return named
    own = unbundled_models(folder)
    if own:
        return own[-1]
    for name in _BUNDLED:
        if (folder / name).is_file():
            return folder / name
    raise ModelFileNotFound(
        f"There is no model in {folder}/. Fetch one with `resnet-service pull`, or name one with --checkpoint."
    )


def unbundled_models(folder: Path = FOLDER) -> list[Path]:
    """Return the models in ``folder`` that are not part of the repository, the user's own included, the newest last.

    A pulled model has two files or more: the checkpoint, and after it, even if they are older, the exported models.
    """
    others = [
        path
        for path in folder.glob("*")
        if path.suffix in (EXPORTED_SUFFIX, *CHECKPOINT_SUFFIXES) and path.name not in _BUNDLED
    ]
    times = {path: path.stat().st_mtime_ns for path in others}
    newest: dict[str, int] = {}
    for path, time in times.items():
        newest[_model_name(path)] = max(time, newest.get(_model_name(path), 0))
    return sorted(others, key=lambda path: (newest[_model_name(path)], path.suffix == EXPORTED_SUFFIX, times[path]))


def _model_name(path: Path) -> str:
    """Return what the names of a checkpoint and of its exported models have in common."""
    return path.stem.removesuffix("-int8").removesuffix("-bf16") if path.suffix == EXPORTED_SUFFIX else path.stem
