"""LitServe around our exported model. The harness sets workers, threads and batch size."""

from typing import Any

import litserve
import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from PIL import Image

from benchmarks.servers import exported_model, options


class ImageClassifier(litserve.LitAPI):
    """Decodes, batches and infers in each worker process; the upload is the form field ``file``."""

    def setup(self, device: str) -> None:
        """Load the network, in each worker."""
        self.model = exported_model.Network(options.model(), threads=options.number("THREADS", 1))

    def decode_request(self, request: Request) -> NDArray[np.uint8]:
        """Turn the upload into pixels."""
        return exported_model.crop(Image.open(request["file"].file))

    def batch(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Stack images into a batch."""
        return np.stack(inputs)

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Infer one image, or a batch."""
        single = pixels.ndim == 3
        logits = self.model.run(pixels[np.newaxis] if single else pixels)
        return logits[0] if single else logits

    def unbatch(self, output: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Split a batch."""
        return list(output)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, Any]:
        """Turn logits into the answer."""
        return exported_model.answer(output)


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
