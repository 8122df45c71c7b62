"""The command ``python -m benchmarks.serialization``: writes, loads, damages, and makes the tables of the page."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks import machine
from benchmarks.images import Kind, make, sources
from benchmarks.paths import CACHE, REPOSITORY, environment
from benchmarks.serialization import canaries, page, plot, writing
from benchmarks.serialization.catalogue import FORMATS, Format
from benchmarks.serialization.damage import Region, try_damaged
from benchmarks.serialization.loaders import MEAN, STD
from benchmarks.serialization.processes import Failed, Loaded, LoadingProcess, Setup
from benchmarks.serialization.results import Figures, Results
from resnet_service import __version__
from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.labels import read_label_set
from resnet_service.models.metadata import ModelMetadata
from resnet_service.runtimes.registry import open_runtime

_CLASSES, _SIDE = 1000, 224
_EXAMPLES = REPOSITORY / "examples" / "images"
_CALIBRATION = Kind("calibration", (500, 375), 100_000, 0.0, 64)
_PACKAGES = ("torch", "torchvision", "safetensors", "onnx", "onnxruntime", "openvino", "nncf", "numpy")
# Where the code of the network is: torchvision's classes, and this service's own.
_CODE = ("torchvision", "resnet_service.models.graphs")
_REGIONS: tuple[Region, ...] = ("weights", "rest", "end")
_TOLERANCE = 1e-3  # of the largest logit, between two versions of PyTorch
_WRITE_SECONDS = 300


def main() -> None:
    """Run the comparison, or make the page again from earlier results."""
    args = _arguments()
    if args.report:
        _report(Results.read(args.output))
        return
    names = args.only.split(",") if args.only else [one.name for one in FORMATS]
    chosen = [one for one in FORMATS if one.name in names]
    if len(chosen) != len(names):
        sys.exit(f"The formats are: {', '.join(one.name for one in FORMATS)}.")
    folder = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    crops = example_crops(_SIDE)
    setup = Setup(_CLASSES, args.threads, folder / "crops.npy")
    np.save(setup.crops, crops)
    photographs = [one for one in sources() if one.parent != _EXAMPLES]
    images = make(_CALIBRATION, folder, photographs)
    model = load_checkpoint(args.checkpoint).model if args.checkpoint else writing.random_network(_CLASSES, crops)
    labels = read_label_set(REPOSITORY / "labels" / "imagenet1k.json")[1]
    _say("Writing the files")
    # The exports are made from our checkpoint, and another PyTorch reads its weights from safetensors.
    needed = {*names, "safetensors", "safetensors-library"}
    writing.write(model, writing.facts(_CLASSES, _SIDE, labels), folder, list(needed), images[0].parent)
    results = Results(
        date=time.strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions={"python": sys.version.split()[0], "resnet-service": __version__}
        | {name: version(name) for name in _PACKAGES},
        settings={
            "rounds": args.rounds,
            "runs": args.runs,
            "copies": args.copies,
            "threads": args.threads,
            "images": len(crops),
            "calibration": len(images) // 2,  # `export` compares on the other half
            "photographs": len(photographs) or len(sources()),
            "weights": "given" if args.checkpoint else "random",
            "others_percent": machine.others_share(),
        },
        formats={one.name: Figures((folder / one.file).stat().st_size) for one in chosen},
    )
    earlier = Results.read(args.output) if args.output.exists() else None
    measure(results, chosen, folder, setup, reference(model, crops), _say)
    if earlier:
        _keep_other_pytorch(results, earlier)
    results.write(args.output)
    for python in args.other_python:
        _try_other_pytorch(results, chosen, folder, setup, reference(model, crops), python)
    results.write(args.output)
    if args.output == page.RESULTS:
        _report(results)


def example_crops(side: int) -> NDArray[np.uint8]:
    """Return the repository's sample images as a network of ``side`` pixels sees them, uint8 [N, side, side, 3]."""
    paths = sorted(_EXAMPLES.glob("*.jpg"))
    facts = writing.facts(_CLASSES, side)
    return np.stack([crop(decode(path.read_bytes()).image, facts) for path in paths])


def reference(model: nn.Module, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits of the network that was saved, float32 [N, classes]."""
    pixels = ((crops.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy()
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(torch.from_numpy(pixels)).numpy()
    return logits


def measure(
    results: Results,
    chosen: Sequence[Format],
    folder: Path,
    setup: Setup,
    expected: NDArray[np.float32],
    on_message: Callable[[str], None],
) -> None:
    """Fill in everything that needs only this version of PyTorch."""
    rounds = int(results.settings["rounds"])
    for number in range(rounds + 1):  # the first fills caches and does not count
        on_message(f"Round {number} of {rounds}")
        for one in [*chosen[number % len(chosen) :], *chosen[: number % len(chosen)]]:
            with LoadingProcess(one.loader, setup) as process:
                found = process.load(folder / one.file, runs=int(results.settings["runs"]))
            if isinstance(found, Failed):
                raise RuntimeError(f"{one.file} does not load: {found.error}: {found.message}")
            if number:
                _add(results.formats[one.name], found, expected)
    for one in chosen:
        on_message(f"Damaging and attacking {one.title.en}")
        figures, path = results.formats[one.name], folder / one.file
        figures.needs_code = not _loads(one, path, setup, _CODE)
        figures.needs_pytorch = not _loads(one, path, setup, ("torch",))
        if one.ours:
            metadata: ModelMetadata = open_runtime(path).metadata
            figures.has_preprocessing, figures.has_labels = bool(metadata.mean), metadata.labels is not None
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            with LoadingProcess(one.loader, setup) as process:
                for region in _REGIONS:
                    copies = int(results.settings["copies"])
                    figures.damage[region] = try_damaged(process, path, region, copies, Path(temporary))
            planted, canary = Path(temporary) / one.file, Path(temporary) / "canary"
            canaries.plant(one.name, path, planted, canary)
            for loader in dict.fromkeys((one.loader, "careless", "service")):
                if loader != "careless" or path.suffix == ".pth":
                    figures.canary[loader] = canaries.attempt(loader, planted, canary, setup)


def _loads(one: Format, path: Path, setup: Setup, block: tuple[str, ...]) -> bool:
    with LoadingProcess(one.loader, setup, block=block) as process:
        return isinstance(process.load(path), Loaded)


def _add(figures: Figures, found: Loaded, expected: NDArray[np.float32]) -> None:
    figures.seconds.append(found.seconds)
    figures.milliseconds.append(float(np.median(found.milliseconds)))
    figures.peak_bytes.append(found.peak_bytes)
    figures.difference = float(np.abs(found.logits - expected).max() / np.abs(expected).max())
    figures.images = len(expected)
    figures.same_first = int((found.logits.argmax(1) == expected.argmax(1)).sum())


def _try_other_pytorch(
    results: Results,
    chosen: Sequence[Format],
    folder: Path,
    setup: Setup,
    expected: NDArray[np.float32],
    python: Path,
) -> None:
    """Load each of PyTorch's files in the other version, and the other version's files in this one."""
    names = [one.name for one in chosen if results.formats[one.name].needs_pytorch]
    _say(f"Trying another PyTorch: {', '.join(names)}")
    other = folder / "other"
    sizes = [str(_CLASSES), str(_SIDE)]
    weights = str(folder / "weights.safetensors")
    done = subprocess.run(
        [str(python), "-m", "benchmarks.serialization.writing", weights, str(other), *sizes, *names],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=str(REPOSITORY / "src")),
        capture_output=True,
        text=True,
        timeout=_WRITE_SECONDS,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{python} cannot write the files: {done.stderr}")
    number = done.stdout.split()[-1].partition("+")[0]
    for one in chosen:
        if one.name in names:
            figures = results.formats[one.name]
            loader = "checkpoint" if one.name == "checkpoint" else one.loader
            figures.older[number] = _outcome(LoadingProcess(loader, setup), other / one.file, expected)
            newer = LoadingProcess(loader, setup, python=python)
            figures.newer[number] = _outcome(newer, folder / one.file, expected)


def _outcome(process: LoadingProcess, path: Path, expected: NDArray[np.float32]) -> str:
    """Return ``same``, ``different``, or the class of the error."""
    with process:
        found = process.load(path)
    if isinstance(found, Failed):
        return found.error
    return "same" if np.abs(found.logits - expected).max() < _TOLERANCE * np.abs(expected).max() else "different"


def _keep_other_pytorch(results: Results, earlier: Results) -> None:
    """Take over what does not change from run to run, if the files are of the same version of PyTorch."""
    if earlier.versions["torch"] == results.versions["torch"]:
        for name, one in results.formats.items():
            if name in earlier.formats:
                one.older, one.newer = earlier.formats[name].older, earlier.formats[name].newer


def _report(results: Results) -> None:
    plot.draw(results, page.PLOT)
    page.write(results)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serialization", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="starts of each format")
    parser.add_argument("--runs", type=int, default=30, help="timed answers in each round")
    parser.add_argument("--copies", type=int, default=20, help="damaged copies of each kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help="formats, separated by commas")
    parser.add_argument("--checkpoint", type=Path, help="a ResNet-18 with 1000 classes; default: random weights")
    parser.add_argument(
        "--other-python", type=Path, nargs="+", default=[], help="interpreters with other versions of PyTorch"
    )
    parser.add_argument("--folder", type=Path, default=CACHE / "serialization", help="for the files")
    parser.add_argument("--output", type=Path, default=page.RESULTS, help="the results; the page shows the default")
    parser.add_argument("--report", action="store_true", help="make the page again from the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
