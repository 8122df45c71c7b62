"""Conversion of a bare state_dict, a training checkpoint or a pickled model to a checkpoint."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from resnet_service.errors import FileNotWritten, PickledCode
from resnet_service.models.checkpoint.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resnet_service.models.labels import labels_for, read_label_set
from resnet_service.models.metadata import LabelSetReference, ModelMetadata
from resnet_service.system.files import check_target
from resnet_service.types import EXPORTED_SUFFIX, Channels, Interpolation, WeightsDtype

_UNPICKLE_SECONDS = 300
_DTYPES: dict[WeightsDtype, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class ConvertOptions:
    """Metadata that the source file lacks, and how the checkpoint is made.

    Args:
        arch: ``arch`` to ``std`` have the same meaning as in ``ModelMetadata``. A value in the file must be equal.
        num_classes: By default, the rows of the last layer.
        input_size: By default 224.
        resize_size: By default in ImageNet's proportion to ``input_size``.
        interpolation: By default bilinear.
        mean: By default ImageNet's.
        std: By default ImageNet's.
        label_file: The label set of the classes; its name and digest go into the checkpoint.
        dtype: Type of the stored weights.
        trust_pickle: Run the code of a pickled model, in a child process. Only for files you made yourself.

    """

    arch: str | None = None
    num_classes: int | None = None
    input_size: int | None = None
    resize_size: int | None = None
    interpolation: Interpolation | None = None
    mean: Channels | None = None
    std: Channels | None = None
    label_file: Path | None = None
    dtype: WeightsDtype = "float32"
    trust_pickle: bool = False


_METADATA = [field.name for field in fields(ConvertOptions) if field.name in ModelMetadata.model_fields]
DEFAULT_OPTIONS = ConvertOptions()


def convert(source: Path, target: Path, options: ConvertOptions = DEFAULT_OPTIONS) -> ModelMetadata:
    """Read ``source``, a bare ``state_dict`` or a training checkpoint, and write it to ``target`` as a checkpoint.

    Raises:
        ModelError: The file cannot be read, or contradicts the options.
        FileNotWritten: The checkpoint cannot be written.

    """
    check_target(source, target)
    if target.suffix == EXPORTED_SUFFIX:
        raise FileNotWritten(f"{target} names an exported model. Name a checkpoint, such as {target.stem}.pth.")
    labels = read_label_set(options.label_file)[1] if options.label_file else None
    if options.trust_pickle:
        with tempfile.TemporaryDirectory() as folder:
            state_file = (Path(folder) / source.name).with_suffix(".pth")
            _unpickle(source, state_file)
            checkpoint = _load(state_file, options, labels)
    else:
        checkpoint = _load(source, options, labels)
    labels_for(checkpoint.metadata, source, options.label_file)
    save_checkpoint(checkpoint.model, target, checkpoint.metadata, dtype=_DTYPES[options.dtype])
    return checkpoint.metadata


def _load(path: Path, options: ConvertOptions, labels: LabelSetReference | None) -> Checkpoint:
    given = {name: getattr(options, name) for name in _METADATA}
    return load_checkpoint(path, from_training=True, labels=labels, **given)


def _unpickle(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "resnet_service.export.unpickle", str(source), str(target)]
    try:
        child = subprocess.run(  # noqa: S603 - our own module; the paths are arguments, never a shell's
            command, capture_output=True, text=True, timeout=_UNPICKLE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PickledCode(f"{source} did not unpickle within {_UNPICKLE_SECONDS} seconds.") from error
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise PickledCode(
            f"{source} could not be unpickled ({reason}). A pickled model needs the modules it was made with: "
            "run this command where the training code can be imported."
        )
