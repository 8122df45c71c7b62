"""BentoML around our exported model, image by image or in adaptive batches."""

from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.servers import exported_model, options

SETTINGS = {
    "workers": options.number("WORKERS", 1),
    "threads": options.number("CALLS", 1),
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}
STREAMS, THREADS = options.number("CALLS", 1), options.number("THREADS", 1)


@bentoml.service(**SETTINGS)
class Single:
    """Answers requests one by one; the upload is the form field ``file``."""

    def __init__(self) -> None:
        self.model = exported_model.Network(options.model(), threads=THREADS, streams=STREAMS)

    @bentoml.api
    def predict(self, file: Image) -> dict[str, Any]:
        """Answer for one image."""
        return exported_model.answer(self.model.run(exported_model.crop(file)[np.newaxis])[0])


@bentoml.service(**SETTINGS)
class Batched:
    """Answers waiting requests in one batch."""

    def __init__(self) -> None:
        self.model = exported_model.Network(options.model(), threads=THREADS, streams=STREAMS)

    @bentoml.api(batchable=True, max_batch_size=options.number("BATCH", 8), max_latency_ms=10_000)
    def predict(self, file: list[Image]) -> list[dict[str, Any]]:
        """Answer for each image."""
        pixels = np.stack([exported_model.crop(image) for image in file])
        return [exported_model.answer(logits) for logits in self.model.run(pixels)]
