"""JPEGs to send, of ImageNet's usual size and of 12 megapixels, made from photographs and cached."""

import importlib.util
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from benchmarks.paths import REPOSITORY

_LOWEST_QUALITY, _HIGHEST_QUALITY = 30, 98
_CUT_EACH_TURN = 0.05  # fraction of width and height, at each edge


class Kind(NamedTuple):
    """A kind of image: size in pixels, approximate bytes, strength of the sensor's noise (of 255), and number."""

    name: str
    size: tuple[int, int]
    wanted_bytes: int
    noise: float
    number: int


# ImageNet's photographs have about 500x375 pixels and 110 kB; 12-megapixel phones write 3 to 5 MB.
PHOTOGRAPHS = Kind("photographs", (500, 375), 100_000, 0.0, 24)
# An enlarged image lacks detail and would decode too fast; noise replaces the detail.
LARGE = Kind("large", (4000, 3000), 4_000_000, 3.0, 3)


def sources() -> list[Path]:
    """Return the photographs of the repository and, if it is installed, those of foolbox from ImageNet."""
    found = sorted((REPOSITORY / "examples" / "images").glob("*.jpg"))
    foolbox = importlib.util.find_spec("foolbox")
    if foolbox is not None and foolbox.origin is not None:
        found += sorted((Path(foolbox.origin).parent / "data").glob("imagenet_*.jpg"))
    return found


def make(kind: Kind, cache: Path, found: Sequence[Path] = ()) -> list[Path]:
    """Write the missing images of a ``kind`` into the cache, made from ``found`` or all sources; return all paths."""
    folder = cache / kind.name
    folder.mkdir(parents=True, exist_ok=True)
    found = found or sources()
    targets = []
    for index in range(kind.number):
        # If there are too few photographs, they are used again, with a narrower crop each time.
        source, turn = found[index % len(found)], index // len(found)
        target = folder / f"{index:02}-{source.stem}.jpg"
        if not target.exists():
            target.write_bytes(_encoded(_derived(source, kind, cut=_CUT_EACH_TURN * turn), kind.wanted_bytes))
        targets.append(target)
    return targets


def _derived(source: Path, kind: Kind, cut: float) -> Image.Image:
    with Image.open(source) as opened:
        image = ImageOps.fit(opened.convert("RGB"), kind.size, Image.Resampling.LANCZOS, bleed=cut)
    if not kind.noise:
        return image
    rng = np.random.default_rng(0)
    noise = rng.normal(0, kind.noise, (kind.size[1], kind.size[0], 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _encoded(image: Image.Image, wanted_bytes: int) -> bytes:
    """Encode at the quality whose size is nearest to ``wanted_bytes``."""
    tried = {len(data): data for data in _bisected(image, wanted_bytes)}
    return tried[min(tried, key=lambda size: abs(size - wanted_bytes))]


def _bisected(image: Image.Image, wanted_bytes: int) -> Iterator[bytes]:
    low, high = _LOWEST_QUALITY, _HIGHEST_QUALITY
    while low <= high:
        quality = (low + high) // 2
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        yield buffer.getvalue()
        low, high = (quality + 1, high) if buffer.tell() < wanted_bytes else (low, quality - 1)
