"""A stand-in for the Hugging Face Hub on 127.0.0.1, with repositories made from random networks of other libraries."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.models import save_for_hf
from torch import nn
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop, normalise
from resnet_service.models.metadata import ModelMetadata
from tests.support.images import EXAMPLES

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STOP_SECONDS = 20

WEIGHTS = "model.safetensors"


class StandIn:
    """Serves ``folder/OWNER/NAME/FILE`` as the Hub does, but for what ``fault`` says.

    ``silent`` accepts and never answers; ``cut`` breaks the first transfer of weights off in the middle;
    ``other-bytes`` flips a bit of the weights; ``no-digest`` leaves the SHA-256 out; ``endless`` sends a gigabyte in
    place of all but weights, ``endless-weights`` in place of these, ``endless-redirect`` in a redirect to them. For the
    repository ``faults/status-429``, every answer has this status. ``hostile`` is a file, the header that its answers
    have, its value, and the number of answers before that have the right one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: str | None = None
        self.requests: list[str] = []  # method, path, range
        self.tokens: set[str | None] = set()
        self.hostile: tuple[str, str, str, int] | None = None
        self.sent = 0  # of endless bodies
        self.closing = threading.Event()
        self.url = ""

    def file(self, repository: str, name: str = WEIGHTS) -> Path:
        return self.folder / repository / name


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.hub
        hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.fault == "silent":
            hub.closing.wait(60)
            self.close_connection = True
            return
        if found := re.match(r"/faults/status-(\d+)/", self.path):
            self._send(int(found[1]), b"", body=body)
            return
        weights = self.path.endswith(WEIGHTS)
        endless = {"endless": not weights, "endless-weights": weights, "endless-redirect": weights}
        if body and endless.get(hub.fault or "", False):
            self._send_endlessly()
            return
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", self.path.partition("?")[0])
        if found:
            folder = hub.folder / found[1]
            if not folder.is_dir():
                self._send(401, b"", body=body, error="RepoNotFound")
                return
            names = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
            content = {"id": found[1], "sha": COMMIT, "siblings": names}
            self._send(200, json.dumps(content).encode(), body=body)
            return
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^/?]+)", self.path.partition("?")[0])
        if not found or not (hub.folder / found[1]).is_dir():
            self._send(401, b"", body=body, error="RepoNotFound")
        elif not hub.file(found[1], found[3]).is_file():
            self._send(404, b"", body=body, error="EntryNotFound")
        else:
            self._send_file(hub.file(found[1], found[3]), body=body)

    def _send_endlessly(self) -> None:
        redirect = self.hub.fault == "endless-redirect"
        self.send_response(302 if redirect else 200)
        if redirect:
            self.send_header("Location", f"{self.path}?storage")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):  # it hangs up
            for _ in range(1000):
                self.wfile.write(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")
                self.hub.sent += 1_000_000
            self.wfile.write(b"0\r\n\r\n")

    def _send_file(self, path: Path, *, body: bool) -> None:
        data = path.read_bytes()
        fault, large = self.hub.fault, path.name == WEIGHTS
        tag = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(data).hexdigest()  # noqa: S324 - git's
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{tag[:40] if fault == "no-digest" else tag}"'}
        if self.hub.hostile is not None and self.hub.hostile[0] == path.name:
            name, header, value, calm = self.hub.hostile
            if header and calm == 0:
                headers[header] = f'"{value}"' if header == "ETag" else value
            self.hub.hostile = (name, header, value, max(0, calm - 1))
        if large and fault == "other-bytes":
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(re.findall(r"\d+", self.headers.get("Range", "bytes=0-"))[0])
        cut = body and large and fault == "cut" and start == 0
        self._send(206 if start else 200, data[start:], body=body, headers=headers, cut=cut)

    def _send(
        self,
        status: int,
        data: bytes,
        *,
        body: bool,
        headers: Mapping[str, str] | None = None,
        error: str = "",
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True


@contextmanager
def stand_in(folder: Path) -> Iterator[StandIn]:
    """Serve a folder of repositories."""
    hub = StandIn(folder)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield hub
        finally:
            hub.closing.set()
            server.shutdown()
            thread.join(STOP_SECONDS)


@torch.no_grad()
def randomise(model: nn.Module, mean: float = 0.45) -> None:
    """Make every number of a network random; batch norms get statistics of photographs, and others than them.

    Blocks change their input a little, as in trained networks: their last batch norm is small.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.3, 0.8)
        nn.init.normal_(norm.bias, 0.3, 0.2)
    model.train()
    model(torch.from_numpy(photographs(96) / np.float32(255) - np.float32(mean)).permute(0, 3, 1, 2))
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean += 0.2 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.6, 1.6)
        norm.momentum = 0.1
    model.eval()


def photographs(side: int, resize: int | None = None) -> NDArray[np.uint8]:
    facts = ModelMetadata(arch="resnet18", num_classes=2, input_size=side, resize_size=resize or side)
    return np.stack([crop(decode(path.read_bytes()).image, facts) for path in sorted(EXAMPLES.glob("*.jpg"))])


def timm_repository(
    folder: Path, repository: str, arch: str, model_config: dict[str, Any], **options: Any
) -> nn.Module:
    """Write a repository as timm's `push_to_hf_hub` does; return its network."""
    torch.manual_seed(1)
    model: nn.Module = timm.create_model(arch, **options)
    randomise(model)
    (folder / repository).parent.mkdir(exist_ok=True)
    save_for_hf(model, str(folder / repository), model_config, safe_serialization=True)
    return model


def transformers_repository(
    folder: Path, repository: str, names: list[str], processor: dict[str, Any], **options: Any
) -> nn.Module:
    """Write a repository of a ResNet as transformers' `save_pretrained` does; return its network."""
    torch.manual_seed(2)
    config = ResNetConfig(id2label=dict(enumerate(names)), **options)
    model: nn.Module = ResNetForImageClassification(config)
    randomise(model)
    model.save_pretrained(folder / repository)  # type: ignore[operator]
    ConvNextImageProcessor(**processor).save_pretrained(folder / repository)
    return model


def logits_of(model: nn.Module, pixels: NDArray[np.uint8], metadata: ModelMetadata) -> NDArray[np.float32]:
    """Return the logits that the network's own library computes, for uint8 [N, S, S, 3]."""
    with torch.no_grad():
        output = model(torch.from_numpy(normalise(pixels, metadata)).permute(0, 3, 1, 2))
    logits: NDArray[np.float32] = getattr(output, "logits", output).numpy()
    return logits
