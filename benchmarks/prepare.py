"""Creates the images, the network in every measured format, and the expected answers.

It is a separate program, since the harness must not load PyTorch or OpenVINO: memory that a server shares with it would
count only in part.

    python -m benchmarks.prepare --torch-python PYTHON [--checkpoint FILE]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.files import Files
from benchmarks.images import LARGE, PHOTOGRAPHS, make
from benchmarks.paths import BENCHMARKS, REPOSITORY
from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop, normalise
from resnet_service.models import architectures
from resnet_service.models.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from resnet_service.models.metadata import ModelMetadata

_CLASSES, _SIDE, _RESIZE = 1000, 224, 256
_TOP = 5


def main() -> None:
    """Create the files that are missing or older than their sources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", type=Path, required=True, help="interpreter that has torch-model-archiver")
    parser.add_argument("--checkpoint", type=Path, help="a ResNet-18 with 1000 classes; default: random weights")
    args = parser.parse_args()
    files = Files()
    for kind in (PHOTOGRAPHS, LARGE):
        make(kind, files.folder)
    if args.checkpoint:
        save_checkpoint(load_checkpoint(args.checkpoint).model, files.checkpoint, _metadata())
    elif not files.checkpoint.exists():
        save_checkpoint(_random_model(files.photographs()), files.checkpoint, _metadata())
    for precision, exported in files.exported.items():
        if _stale(exported, files.checkpoint, *(REPOSITORY / "src" / "resnet_service" / "export").glob("*.py")):
            _export(files, precision, exported)
    if _stale(files.state_dict, files.checkpoint):
        torch.save(load_checkpoint(files.checkpoint).model.state_dict(), files.state_dict)
    if _stale(files.archive, files.state_dict):
        _archive(files, args.torch_python)
    files.answers.write_text(json.dumps(_answers(files), indent=1))


def _metadata() -> ModelMetadata:
    return ModelMetadata(arch="resnet18", num_classes=_CLASSES, input_size=_SIDE, resize_size=_RESIZE)


def _stale(target: Path, *sources: Path) -> bool:
    return not target.exists() or any(source.stat().st_mtime > target.stat().st_mtime for source in sources)


def _crops(photographs: list[Path]) -> NDArray[np.uint8]:
    return np.stack([crop(decode(path.read_bytes()).image, _metadata()) for path in photographs])


def _random_model(photographs: list[Path]) -> nn.Module:
    """Return an untrained network whose batch norms have statistics, so that its answers depend on the image."""
    torch.manual_seed(0)
    model = architectures.build("resnet18", _CLASSES).train()
    pixels = torch.from_numpy(normalise(_crops(photographs), _metadata())).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        for _ in range(20):  # running averages move by a tenth in each pass
            model(pixels)
    return model.eval()


def _export(files: Files, precision: str, target: Path) -> None:
    """Export with the command of users. Random weights may lose any accuracy, which does not change the speed."""
    calibration = ["--calibration", str(files.photographs_folder)] if precision != "fp32" else []
    settings = ["--output", str(target), "--precision", precision, *calibration, "--max-loss", "100"]
    subprocess.run([sys.executable, "-m", "resnet_service", "export", str(files.checkpoint), *settings], check=True)


def _archive(files: Files, torch_python: Path) -> None:
    """Write TorchServe's archive of weights and network, with TorchServe's handler for images."""
    name = ["--model-name", files.archive.stem, "--version", "1", "--export-path", str(files.archive.parent), "--force"]
    network = ["--model-file", str(BENCHMARKS / "servers" / "torchserve_network.py")]
    weights = ["--serialized-file", str(files.state_dict), "--handler", "image_classifier"]
    files.archive.parent.mkdir(exist_ok=True)
    archiver = str(torch_python.with_name("torch-model-archiver"))
    subprocess.run([archiver, *name, *network, *weights], check=True)


def _answers(files: Files) -> dict[str, list[int]]:
    """Return the most probable classes of the checked image, at each precision."""
    pixels = _crops([files.checked_image])
    model = load_checkpoint(files.checkpoint).model
    with torch.inference_mode():
        logits = {"torch": model(torch.from_numpy(normalise(pixels, _metadata())).permute(0, 3, 1, 2)).numpy()[0]}
    core = openvino.Core()
    for precision, exported in files.exported.items():
        hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        logits[precision] = core.compile_model(str(exported), "CPU", hint)([pixels])[0][0]
    return {name: np.argsort(-found)[:_TOP].tolist() for name, found in logits.items()}


if __name__ == "__main__":
    main()
