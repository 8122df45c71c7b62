"""BentoML with PyTorch, image by image or in adaptive batches. The harness chooses, and sets the number of workers."""

from typing import Any

import bentoml
import torch
from PIL.Image import Image

from benchmarks.servers import options, torch_model

SETTINGS = {
    "workers": options.number("WORKERS", 1),
    "threads": options.number("CALLS", 1),
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}


def _load() -> torch.nn.Module:
    return torch_model.load(
        options.model(), threads=options.number("THREADS", 1), channels_last=bool(options.number("CHANNELS_LAST", 0))
    )


@bentoml.service(**SETTINGS)
class Single:
    """Answers requests one by one; the upload is the form field ``file``."""

    def __init__(self) -> None:
        self.model = _load()

    @bentoml.api
    def predict(self, file: Image) -> dict[str, Any]:
        """Answer for one image."""
        return torch_model.answer(torch_model.run(self.model, torch_model.prepare(file)[None])[0])


@bentoml.service(**SETTINGS)
class Batched:
    """Answers waiting requests in one batch."""

    def __init__(self) -> None:
        self.model = _load()

    @bentoml.api(batchable=True, max_batch_size=options.number("BATCH", 8), max_latency_ms=10_000)
    def predict(self, file: list[Image]) -> list[dict[str, Any]]:
        """Answer for each image."""
        pixels = torch.stack([torch_model.prepare(image) for image in file])
        return [torch_model.answer(logits) for logits in torch_model.run(self.model, pixels)]
