"""Images for tests, real and synthetic."""

import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
CAT = EXAMPLES / "cat.jpg"


def imagenet_photographs() -> list[tuple[Path, int]]:
    """Return the 20 photographs of foolbox's wheel, each with its class index, which its name ends with."""
    found = importlib.util.find_spec("foolbox")
    assert found is not None
    assert found.origin is not None, "foolbox is not installed: make test installs it"
    paths = sorted((Path(found.origin).parent / "data").glob("imagenet_*.jpg"))
    classes = [int(re.findall(r"\d+", path.stem)[-1]) for path in paths]
    return list(zip(paths, classes, strict=True))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image in which every pixel matters: smooth colours with noise on top."""
    rng = np.random.default_rng(seed)
    x, y = np.linspace(0, 200, width), np.linspace(0, 200, height)[:, None]
    ramp = np.stack(np.broadcast_arrays(x, y, 200 - x), axis=-1)
    return Image.fromarray((ramp + rng.integers(0, 56, ramp.shape)).astype(np.uint8))


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
