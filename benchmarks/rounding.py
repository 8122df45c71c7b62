"""The effect of rounding FP32 tensors to 8-bit pixels on answers.

    python -m benchmarks.rounding checkpoints/efficientnet-lite0-imagenet1k.pth PHOTOGRAPHS

PHOTOGRAPHS is a folder; by default, the photographs of the tests. PyTorch resizes each in floating point, as pipelines
without 8-bit pixels do. Its answers for that tensor are compared with those for the service's tensor.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.decoding import photographs
from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import denormalise, normalise
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.metadata import ModelMetadata


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("photographs", type=Path, nargs="?")
    args = parser.parse_args()
    paths = sorted(args.photographs.iterdir()) if args.photographs else list(photographs())
    print(json.dumps(compare(args.checkpoint, [path.read_bytes() for path in paths]), indent=1))


def compare(checkpoint: Path, images: list[bytes]) -> dict[str, float]:
    """Compare the answers for each image's tensor with those for the rounded tensor."""
    loaded = load_checkpoint(checkpoint)
    differences, same = [], []
    with torch.inference_mode():
        for image in images:
            resized = _resized(image, loaded.metadata)
            rounded = normalise(denormalise(resized, loaded.metadata), loaded.metadata)
            exact, as_served = (
                loaded.model(torch.from_numpy(array).permute(0, 3, 1, 2))[0].numpy() for array in (resized, rounded)
            )
            differences.append(np.abs(exact - as_served).max())
            same.append(exact.argmax() == as_served.argmax())
    return {
        "images": len(images),
        "same first answer, %": 100 * float(np.mean(same)),
        "largest difference of a logit": float(np.max(differences)),
        "largest difference of a logit, median image": float(np.median(differences)),
    }


def _resized(data: bytes, metadata: ModelMetadata) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the centre square, resized and normalised without rounding, float32 [1, S, S, 3]."""
    image = decode(data).image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = np.asarray(image.crop((left, top, left + side, top + side)), np.float32).transpose(2, 0, 1)
    size = metadata.input_size
    scaled = functional.interpolate(
        torch.from_numpy(square.copy())[None], (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    pixels = scaled.permute(0, 2, 3, 1).numpy() / np.float32(255)
    return np.asarray((pixels - np.asarray(metadata.mean, np.float32)) / np.asarray(metadata.std, np.float32))


if __name__ == "__main__":
    main()
