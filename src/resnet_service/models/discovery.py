"""Which model is meant when none is named."""

from pathlib import Path

from resnet_service.errors import ModelFileNotFound
from resnet_service.types import CHECKPOINT_SUFFIX, EXPORTED_SUFFIX

FOLDER = Path("checkpoints")

# They came with the repository; whoever pulled or trained another model wants that.
_EMBEDDED = ("resnet18-fashion-mnist-int8.onnx", "resnet18-fashion-mnist.pth")


def choose_model(named: Path | None, folder: Path = FOLDER) -> Path:
    """Return the model that was named, else the newest in ``folder``, the embedded one last.

    Raises:
        ModelFileNotFound: None was named and there is none.

    """
    if named is not None:
        return named
    pulled = pulled_models(folder)
    if pulled:
        return pulled[-1]
    for name in _EMBEDDED:
        if (folder / name).is_file():
            return folder / name
    raise ModelFileNotFound(
        f"There is no model in {folder}/: fetch one with `resnet-service pull`, or name one with --checkpoint."
    )


def pulled_models(folder: Path = FOLDER) -> list[Path]:
    """Return the models in ``folder`` that did not come with the repository, the newest last.

    A model that was pulled and then exported is there twice; the exported one, being newer, comes after its checkpoint.
    """
    others = (
        path
        for path in folder.glob("*")
        if path.suffix in (EXPORTED_SUFFIX, CHECKPOINT_SUFFIX) and path.name not in _EMBEDDED
    )
    return sorted(others, key=lambda path: path.stat().st_mtime_ns)
