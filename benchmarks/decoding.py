"""The differences between `--decode fast` and `--decode exact` on photographs: pixels, answers and time.

    python -m benchmarks.decoding checkpoints/efficientnet-lite0-imagenet1k.onnx PHOTOGRAPHS

PHOTOGRAPHS is a folder; by default, the photographs of the tests. Each is compared as it is and enlarged to 12
megapixels, the size of a camera's.
"""

import argparse
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from resnet_service.imaging.decode import DRAFT_MARGIN, decode
from resnet_service.imaging.preprocess import crop
from resnet_service.inference.classifier import Classifier, ClassifierConfig
from resnet_service.inference.results import Classification
from resnet_service.types import Fidelity

_TWELVE_MEGAPIXELS = 12_000_000


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path, nargs="?")
    args = parser.parse_args()
    paths = sorted(args.photographs.iterdir()) if args.photographs else list(photographs())
    original = [path.read_bytes() for path in paths]
    found = {"as they are": compare(args.model, original), "12 megapixels": compare(args.model, _enlarged(original))}
    print(json.dumps(found, indent=1))


def compare(model: Path, images: list[bytes]) -> dict[str, float]:
    """Classify each image with both settings, alternating; return means over the images, and medians of times."""
    ways: dict[Fidelity, Classifier] = {
        way: Classifier.open(model, ClassifierConfig(decoding=way)) for way in ("exact", "fast")
    }
    metadata = ways["exact"].model.metadata
    answers: dict[Fidelity, list[Classification]] = {"exact": [], "fast": []}
    times: dict[Fidelity, list[float]] = {"exact": [], "fast": []}
    off = []
    for image in images:
        for way, classifier in ways.items():
            begin = time.perf_counter()
            answers[way].append(classifier.classify(image))
            times[way].append(1000 * (time.perf_counter() - begin))
        exact = crop(decode(image).image, metadata)
        fast = crop(decode(image, min_side=DRAFT_MARGIN * metadata.resize_size).image, metadata, exact=False)
        off.append(float(np.abs(exact.astype(int) - fast).mean()))
    pairs = list(zip(answers["exact"], answers["fast"], strict=True))
    labels = [[[one.label for one in answer.predictions] for answer in pair] for pair in pairs]
    scores = [[{one.label: one.score for one in answer.predictions} for answer in pair] for pair in pairs]
    return {
        "images": len(pairs),
        "same first answer, %": 100 * float(np.mean([exact[0] == fast[0] for exact, fast in labels])),
        "same five answers in order, %": 100 * float(np.mean([exact == fast for exact, fast in labels])),
        "largest difference of a score": max(
            abs(score - fast[label]) for exact, fast in scores for label, score in exact.items() if label in fast
        ),
        "mean difference of a pixel, of 255": float(np.mean(off)),
        "exact, ms": float(np.median(times["exact"])),
        "fast, ms": float(np.median(times["fast"])),
    }


def _enlarged(images: list[bytes]) -> list[bytes]:
    enlarged = []
    for data in images:
        image = decode(data).image
        factor = (_TWELVE_MEGAPIXELS / (image.width * image.height)) ** 0.5
        buffer = io.BytesIO()
        size = (round(image.width * factor), round(image.height * factor))
        image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=92)
        enlarged.append(buffer.getvalue())
    return enlarged


def photographs() -> Iterator[Path]:
    """Return the photographs of the repository and, if it is installed, of foolbox."""
    import importlib.util

    yield from sorted((Path(__file__).parents[1] / "examples" / "images").glob("*.jpg"))
    found = importlib.util.find_spec("foolbox")
    if found is not None and found.origin is not None:
        yield from sorted((Path(found.origin).parent / "data").glob("imagenet_*.jpg"))


if __name__ == "__main__":
    main()
