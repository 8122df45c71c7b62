"""What ``pull --if-missing`` has to do: nothing, export a checkpoint that is there, or pull.

The command must not hide a model of the user's own: `serve` takes the newest model of the folder, which a pulled one
would be. It must not keep an FP32 model either if images for INT8 are given.
"""

from pathlib import Path
from typing import NamedTuple

from resnet_service.export.sources.catalog import DEFAULT_ARCH, checkpoint_stem
from resnet_service.models.discovery import unbundled_models
from resnet_service.models.networks import LITE0
from resnet_service.types import EXPORTED_SUFFIX, SAFETENSORS_SUFFIX, Precision, WeightsSource

_INT8 = "-int8"


class Present(NamedTuple):
    """What a folder has of what was asked for.

    Args:
        model: The model that makes the command unnecessary, if there is one.
        checkpoint: Else the checkpoint that only has to be exported, if there is one.
        own: Whether ``model`` is another one than the command would write, which must not be hidden.

    """

    model: Path | None = None
    checkpoint: Path | None = None
    own: bool = False


def find_present(folder: Path, source: WeightsSource, name: str | None, precision: Precision) -> Present:
    """Look for the model that ``pull`` would write.

    Without a name and a source, it is the newest model of the folder that counts. If it is not a pulled one, it stays
    the newest. If it is, its precision must be the wanted one; FP32 is the default, so an existing INT8 model satisfies
    it.

    With a name or a source, the exported model of this name and precision counts.

    Args:
        folder: The folder of the command.
        source: As for ``pull``.
        name: As in ``PullRequest``.
        precision: Of the exported model.

    """
    if name is not None:
        stems = [checkpoint_stem(name)]
    elif source == "auto":
        stems = [checkpoint_stem(DEFAULT_ARCH), checkpoint_stem(LITE0)]
    else:
        stems = [checkpoint_stem(LITE0 if source == "pypi" else DEFAULT_ARCH)]
    models = unbundled_models(folder)
    if name is None and source == "auto":
        newest = models[-1] if models else None
        if newest is not None and newest.stem.removesuffix(_INT8) not in stems:
            return Present(newest, own=True)
        candidates = [newest] if newest is not None else []
    else:
        candidates = models
    for stem in stems:
        wanted = (f"{stem}{_INT8}",) if precision == "int8" else (stem, f"{stem}{_INT8}")
        for model in candidates:
            if model.suffix == EXPORTED_SUFFIX and model.stem in wanted:
                return Present(model)
    for stem in stems:
        # Checkpoints of older versions, which only PyTorch reads, are pulled again.
        if (checkpoint := folder / f"{stem}{SAFETENSORS_SUFFIX}") in models:
            return Present(checkpoint=checkpoint)
    return Present()
