"""LitServe with PyTorch. The harness sets workers, threads and batch size."""

from typing import Any

import litserve
import torch
from fastapi import Request
from PIL import Image
from torch import Tensor

from benchmarks.servers import options, torch_model


class ImageClassifier(litserve.LitAPI):
    """Decodes, batches and infers in each worker process; the upload is the form field ``file``."""

    def setup(self, device: str) -> None:
        """Load the network, in each worker."""
        self.model = torch_model.load(
            options.model(),
            threads=options.number("THREADS", 1),
            channels_last=bool(options.number("CHANNELS_LAST", 0)),
        )

    def decode_request(self, request: Request) -> Tensor:
        """Turn the upload into pixels."""
        return torch_model.prepare(Image.open(request["file"].file))

    def batch(self, inputs: list[Tensor]) -> Tensor:
        """Stack images into a batch."""
        return torch.stack(inputs)

    def predict(self, pixels: Tensor) -> Tensor:
        """Infer one image, or a batch."""
        single = pixels.dim() == 3
        logits = torch_model.run(self.model, pixels[None] if single else pixels)
        return logits[0] if single else logits

    def unbatch(self, output: Tensor) -> list[Tensor]:
        """Split a batch."""
        return list(output)

    def encode_response(self, output: Tensor) -> dict[str, Any]:
        """Turn logits into the answer."""
        return torch_model.answer(output)


if __name__ == "__main__":
    api = ImageClassifier(
        max_batch_size=options.number("BATCH", 1), batch_timeout=options.number("BATCH_MILLISECONDS", 0) / 1000
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.number("WORKERS", 1))
    server.run(
        host=options.HOST,
        port=options.port(),
        num_api_servers=options.number("API_SERVERS", options.number("WORKERS", 1)),
        log_level="warning",
        generate_client_file=False,
    )
