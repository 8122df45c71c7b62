"""Shared code of the servers with our exported model: Pillow decodes and resizes, OpenVINO infers, as in the service.

It does not import the service, since a user who serves the model file elsewhere would not either.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from PIL import Image

from benchmarks.servers import options

RESIZE, CROP = 256, 224


class Network:
    """The exported model, compiled for the CPU. Thread-safe."""

    def __init__(self, path: Path, *, threads: int, streams: int = 1) -> None:
        """Compile ``path`` for ``streams`` calls at once, which have ``threads`` CPU threads in all."""
        core = openvino.Core()
        network = core.read_model(path)
        if options.number("BATCH", 1) == 1:
            network.reshape([1, CROP, CROP, 3])  # a fixed shape is faster
        # With pinning, two processes would pin their threads to the same CPU.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        settings |= {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads}
        self._compiled = core.compile_model(network, "CPU", settings)
        self._of_thread = threading.local()

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits [N, 1000] of uint8 [N, 224, 224, 3]."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        logits: NDArray[np.float32] = self._of_thread.request.infer([pixels], share_inputs=True)[0]
        return logits


def crop(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels that the network sees, uint8 [224, 224, 3].

    Large JPEGs are decoded at reduced scale, and only what the crop shows is resized.
    """
    image.draft("RGB", (2 * RESIZE, 2 * RESIZE))
    image = image.convert("RGB")
    width, height = image.size
    side = min(width, height) * CROP / RESIZE
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((CROP, CROP), Image.Resampling.BILINEAR, box=box))


def answer(logits: NDArray[np.float32]) -> dict[str, Any]:
    """Return one image's five most probable classes."""
    exponentials = np.exp(logits - logits.max())
    scores = exponentials / exponentials.sum()
    best = np.argsort(-scores)[:5]
    return {"predictions": [{"class_id": int(index), "score": float(scores[index])} for index in best]}
