"""One-off conversion: whatever way a model was saved, into a checkpoint."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from resnet_service.errors import PickledCode
from resnet_service.models.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from resnet_service.models.labels import labels_for, read_label_set
from resnet_service.models.metadata import ModelMetadata

_UNPICKLE_SECONDS = 300


def convert(
    source: Path,
    target: Path,
    *,
    label_file: Path | None = None,
    trust_pickle: bool = False,
    dtype: torch.dtype = torch.float32,
    **given: Any,
) -> ModelMetadata:
    """Read ``source``, a bare ``state_dict`` or a training checkpoint, and write it to ``target`` as a checkpoint.

    Args:
        source: The file to read.
        target: The checkpoint to write.
        label_file: The label set that the classes mean; its name and digest go into the checkpoint.
        trust_pickle: Run the code of a pickled model, in a child process. Only for files that you made yourself.
        dtype: Of the stored weights.
        **given: Metadata that the file does not carry, by the names of ``ModelMetadata``.

    Raises:
        ModelError: The file cannot be read, or does not fit what was given.

    """
    if label_file is not None:
        given["labels"] = read_label_set(label_file)[1]
    if trust_pickle:
        with tempfile.TemporaryDirectory() as folder:
            state_file = Path(folder) / source.name
            _unpickle(source, state_file)
            checkpoint = load_checkpoint(state_file, from_training=True, **given)
    else:
        checkpoint = load_checkpoint(source, from_training=True, **given)
    labels_for(checkpoint.metadata, source, label_file)
    save_checkpoint(checkpoint.model, target, checkpoint.metadata, dtype=dtype)
    return checkpoint.metadata


def _unpickle(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "resnet_service.export.unpickle", str(source), str(target)]
    try:
        child = subprocess.run(  # noqa: S603 - our own module; the paths are arguments, never a shell's
            command, capture_output=True, text=True, timeout=_UNPICKLE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PickledCode(f"{source} did not unpickle within {_UNPICKLE_SECONDS} seconds.") from error
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise PickledCode(
            f"{source} could not be unpickled ({last}). A pickled model needs the very modules it was made with; "
            "run this where the training code can be imported."
        )
