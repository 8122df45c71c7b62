"""The accuracy of INT8: the repository's ResNet-18 on all 10,000 test images of Fashion-MNIST.

It uses the commands of users: ``export`` calibrates on training images, ``evaluate`` measures.
"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.files import Files
from benchmarks.paths import REPOSITORY, environment

DATA = Path("/usr/share/datasets/fashion-mnist")  # the folder of Debian's package dataset-fashion-mnist
CHECKPOINT = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors"

_CALIBRATION_IMAGES = 1300  # what `export` uses at most
_WITHIN_SECONDS = 900


def measure(files: Files) -> dict[str, float]:
    """Return top-1 in percent by precision; an empty dict if the data set is not installed.

    Raises:
        subprocess.CalledProcessError: A command failed.

    """
    if not (DATA.is_dir() and CHECKPOINT.exists()):
        return {}
    folder = files.folder / "fashion-mnist"
    subprocess.run([sys.executable, "-m", "benchmarks.accuracy"], cwd=REPOSITORY, timeout=_WITHIN_SECONDS, check=True)
    found = {}
    for precision in ("fp32", "int8"):
        exported = folder / f"{precision}.onnx"
        calibration = ["--calibration", str(folder / "calibration")] if precision == "int8" else []
        _command("export", str(CHECKPOINT), "--output", str(exported), "--precision", precision, *calibration)
        found[precision] = float(json.loads(_command("evaluate", str(exported), str(DATA), "--json"))["top1"])
    return found


def _command(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "resnet_service", *arguments],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=_WITHIN_SECONDS,
        check=True,
    ).stdout


def _write_calibration(folder: Path) -> None:
    """Write training images as files, in folders named for their classes."""
    from PIL import Image

    from resnet_service.evaluation.datasets import read_idx
    from resnet_service.models.labels import read_label_set

    labels, _ = read_label_set(REPOSITORY / "labels" / "fashion-mnist.json")
    images = read_idx(DATA / "train-images-idx3-ubyte.gz")[:_CALIBRATION_IMAGES]
    classes = read_idx(DATA / "train-labels-idx1-ubyte.gz")[:_CALIBRATION_IMAGES]
    for number, (pixels, class_id) in enumerate(zip(images, classes, strict=True)):
        target = folder / str(labels.classes[int(class_id)].id) / f"{number:05}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target)


if __name__ == "__main__":
    _write_calibration(Files().folder / "fashion-mnist" / "calibration")
