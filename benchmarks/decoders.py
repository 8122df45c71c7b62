"""Other ways from a JPEG to the network's pixels: CPU time, and how answers differ from `exact`.

    pip install simplejpeg
    python -m benchmarks.decoders checkpoints/efficientnet-lite0-imagenet1k.onnx [PHOTOGRAPHS]

PHOTOGRAPHS is a folder; by default, the photographs of the tests. They are measured at 500x375 pixels, as in ImageNet,
and at 12 megapixels, as from a camera. The ways take turns; each figure is the median over the rounds, and each ratio
the median of the ratios to `ours` in the same round. Decision 0032 says what follows from it.
"""

import argparse
import io
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import simplejpeg
from numpy.typing import NDArray
from openvino import opset13 as ops
from PIL import Image

from benchmarks.decoding import photographs
from resnet_service.imaging.decode import DRAFT_MARGIN, decode
from resnet_service.imaging.decoder_limits import check_file
from resnet_service.imaging.preprocess import crop, region
from resnet_service.inference.ranking import softmax
from resnet_service.models.metadata import ModelMetadata
from resnet_service.runtimes.registry import open_runtime

_SIZES = {"500x375": (500, 375), "12 megapixels": (4000, 3000)}
_ROUNDS = 9

Pixels = NDArray[np.uint8]
Way = Callable[[bytes], Pixels]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path, nargs="?")
    args = parser.parse_args()
    runtime = open_runtime(args.model)
    paths = sorted(args.photographs.iterdir()) if args.photographs else list(photographs())
    images = [decode(path.read_bytes()).image for path in paths]
    print("| image | way | CPU ms | relative | changed first answers | largest difference of a score |")
    print("|---|---|--:|--:|--:|--:|")
    for size_name, size in _SIZES.items():
        files = [encoded(image, size) for image in images]
        ways = ways_for(runtime.metadata)
        scores = {
            name: np.stack([softmax(runtime.logits(way(file)[np.newaxis])[0]) for file in files])
            for name, way in ways.items()
        }
        times = measure(ways, files)
        for name in ways:
            ratio = statistics.median(mine / ours for mine, ours in zip(times[name], times["ours"], strict=True))
            changed = int(np.count_nonzero(scores[name].argmax(axis=1) != scores["exact"].argmax(axis=1)))
            off = float(np.abs(scores[name] - scores["exact"]).max())
            print(
                f"| {size_name} | {name} | {statistics.median(times[name]):.2f} | {ratio:.2f} "
                f"| {changed} of {len(files)} | {off:.3f} |"
            )


def ways_for(metadata: ModelMetadata) -> dict[str, Way]:
    """Return the ways by name; each maps a file to uint8 [S, S, 3]."""
    return {
        "ours": at_margin(DRAFT_MARGIN, metadata),
        "exact": lambda data: crop(decode(data).image, metadata),
        "reduced scale with a margin of 1.5": at_margin(1.5, metadata),
        "reduced scale with a margin of 1": at_margin(1, metadata),
        "libjpeg-turbo by simplejpeg": by_simplejpeg(metadata),
        "resize in OpenVINO": by_openvino(metadata),
    }


def at_margin(margin: float, metadata: ModelMetadata) -> Way:
    """Decode as the service does, at a reduced scale that keeps ``margin`` times the pixels of the resize target."""
    min_side = math.ceil(margin * metadata.resize_size)
    return lambda data: crop(decode(data, min_side=min_side).image, metadata, exact=False)


def by_simplejpeg(metadata: ModelMetadata) -> Way:
    """Decode with another binding of libjpeg-turbo, to the same scale, and resize as the service does."""
    side = DRAFT_MARGIN * metadata.resize_size

    def way(data: bytes) -> Pixels:
        check_file(data, "JPEG")
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        fraction = side / min(width, height)
        size = {"min_width": math.ceil(width * fraction), "min_height": math.ceil(height * fraction)}
        pixels = simplejpeg.decode_jpeg(data, "RGB", **(size if fraction < 1 else {}), min_factor=1)
        return crop(Image.fromarray(pixels), metadata, exact=False)

    return way


def by_openvino(metadata: ModelMetadata) -> Way:
    """Decode as the service does; resize with OpenVINO's interpolation that copies Pillow's, in one thread.

    Only the rounding of the crop differs: it is cut at whole pixels.
    """
    side, min_side = metadata.input_size, DRAFT_MARGIN * metadata.resize_size
    image = ops.parameter([1, -1, -1, 3], np.uint8)
    resized = ops.interpolate(
        image,
        ops.constant(np.array([side, side], np.int64)),
        mode=f"{metadata.interpolation}_pillow",
        shape_calculation_mode="sizes",
        axes=ops.constant(np.array([1, 2], np.int64)),
        pads_begin=[0] * 4,
        pads_end=[0] * 4,
    )
    compiled = ov.Core().compile_model(ov.Model([resized], [image]), "CPU", {"INFERENCE_NUM_THREADS": 1})
    request = compiled.create_infer_request()

    def way(data: bytes) -> Pixels:
        whole = decode(data, min_side=min_side).image
        shown = region(whole.size, metadata)
        box = (shown.left, shown.top, shown.left + shown.width, shown.top + shown.height)
        left, top, right, bottom = (round(side) for side in box)
        part = np.asarray(whole.crop((left, top, right, bottom)))
        return np.array(request.infer([part[np.newaxis]])[0][0], dtype=np.uint8)

    return way


def measure(ways: dict[str, Way], files: list[bytes]) -> dict[str, list[float]]:
    """Return the CPU milliseconds of a file in each round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            before = time.process_time()
            for file in files:
                way(file)
            times[name].append(1000 * (time.process_time() - before) / len(files))
    return times


def encoded(image: Image.Image, size: tuple[int, int]) -> bytes:
    """Return the image at ``size``, turned to landscape, as JPEG."""
    landscape = image if image.width >= image.height else image.transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    landscape.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
