"""Writes one ResNet-18 in every way: ``python -m benchmarks.serialization.writing WEIGHTS FOLDER CLASSES SIDE NAME…``.

The command reads the weights from a safetensors file; the benchmark runs it with another version of PyTorch.
"""

import argparse
import logging
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from benchmarks.paths import REPOSITORY, environment
from benchmarks.serialization.catalogue import FORMATS, PRECISIONS
from benchmarks.serialization.loaders import MEAN, STD
from resnet_service.models.checkpoint.checkpoint import save_checkpoint
from resnet_service.models.metadata import LabelSetReference, ModelMetadata

_CALIBRATION_RUNS = 20  # running averages move by a tenth in each
_EXPORT_SECONDS = 600


def facts(classes: int, side: int, labels: LabelSetReference | None = None) -> ModelMetadata:
    """Return the metadata of the network."""
    return ModelMetadata(
        arch="resnet18", num_classes=classes, input_size=side, resize_size=side * 256 // 224, labels=labels
    )


def random_network(classes: int, crops: NDArray[np.uint8]) -> nn.Module:
    """Return a ResNet-18 with random weights, whose batch norms have the statistics of the crops, uint8 [N, S, S, 3].

    The weights of its batch norms are random too; in a fresh network they are all 1 and would be worth nothing.
    """
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=classes).train()
    pixels = torch.from_numpy(((crops.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.3)
        for _ in range(_CALIBRATION_RUNS):
            model(pixels)
    evaluated: nn.Module = model.eval()
    return evaluated


def write(model: nn.Module, metadata: ModelMetadata, folder: Path, names: Sequence[str], images: Path | None) -> None:
    """Write the named formats into ``folder``; the exports need the checkpoint, and the last two need ``images``."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in FORMATS:
        if one.name in names:
            _write(one.name, folder / one.file, model, metadata, images)


def _write(name: str, path: Path, model: nn.Module, metadata: ModelMetadata, images: Path | None) -> None:
    example = torch.zeros(1, 3, metadata.input_size, metadata.input_size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the exporters warn of their next versions
        match name:
            case "state_dict":
                torch.save(model.state_dict(), path)
            case "pickle":
                torch.save(model, path)
            case "checkpoint" | "safetensors":
                save_checkpoint(model, path, metadata)
            case "safetensors-library":
                from safetensors.torch import save_file

                save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
            case "torchscript":
                torch.jit.trace(model, example).save(str(path))  # type: ignore[no-untyped-call]
            case "torch-export":
                torch.export.save(torch.export.export(model, (example,)), path)
            case "onnx":
                logging.getLogger("torch.onnx").setLevel(logging.ERROR)
                torch.onnx.export(model, (example,), path, dynamo=True, external_data=False, verbose=False)
            case _ if name in PRECISIONS:
                _export(path.with_name("checkpoint.safetensors"), path, name, images)


def _export(checkpoint: Path, target: Path, precision: str, images: Path | None) -> None:
    """Export with the command of users. Random weights may lose any accuracy, which does not change the speed."""
    calibration = ["--calibration", str(images)] if precision != "fp32" else []
    settings = ["--output", str(target), "--precision", precision, *calibration, "--max-loss", "100"]
    command = [sys.executable, "-m", "resnet_service", "export", str(checkpoint), *settings]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=_EXPORT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"The export to {target.name} failed: {done.stderr}")


def main() -> None:
    """Write the named formats of the weights in a file."""
    from safetensors.torch import load_file

    parser = argparse.ArgumentParser()
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("classes", type=int)
    parser.add_argument("side", type=int)
    parser.add_argument("names", nargs="+")
    args = parser.parse_args()
    model = torchvision.models.resnet18(num_classes=args.classes)
    model.load_state_dict(load_file(args.weights))
    write(model.eval(), facts(args.classes, args.side), args.folder, args.names, None)
    print(torch.__version__)


if __name__ == "__main__":
    main()
