"""The process survives the worst mixture of images and bodies in the memory that the files in `deploy/` give it.

Without the budget for decoding, the same mixture ends the process.
"""

import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from fuzz import bombs
from fuzz.variants import VARIANTS
from tests.support.cgroups import memory_limit
from tests.support.images import CAT
from tests.support.problems import assert_problem
from tests.support.servers import REPOSITORY, server_process

EXPORTED = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
LIMIT = 1536 * 2**20  # docker-compose.yml and deploy/kubernetes
SIZE = (8000, 6000)
ROUNDS = 2


def tiff_of_many_tags() -> bytes:
    """A TIFF of one pixel with nearly as many unknown tags as are accepted."""
    fields = {**bombs._grey(1, 1), 273: (4, 1, 8), 278: (4, 1, 1), 279: (4, 1, 1)}
    return bombs._tiff({**fields, **{30_000 + number: (4, 1, 1) for number in range(4000)}}, b"x" * 8)


LARGEST: dict[str, Callable[[], bytes]] = {
    "tiff of many tags": tiff_of_many_tags,
    "png": lambda: VARIANTS["png RGBA turned"](*SIZE),
    "jpeg": lambda: VARIANTS["jpeg CMYK progressive subsampling 0"](*SIZE),
    "avif": lambda: VARIANTS["avif RGB 4:4:4"](*SIZE),
    "tiff": lambda: VARIANTS["tiff RGBA tiff_adobe_deflate one strip"](*SIZE),
    "webp": lambda: VARIANTS["webp RGBA lossless"](7000, 6000),
}


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    return {name: make() for name, make in LARGEST.items()}


@pytest.fixture(scope="module")
def mixture(images: dict[str, bytes]) -> list[bytes]:
    lossless = bombs.webp_of_the_most_pixels()
    assert len(lossless) < 3_000
    largest_body = CAT.read_bytes().ljust(bombs.BODY - 1, b"\0")
    return [*images.values(), lossless, *[largest_body] * 6] * 5


def send_all(url: str, bodies: list[bytes]) -> Counter[int]:
    """Send all bodies at once; return how many were answered with each status, 0 for a connection that broke."""

    def send(body: bytes) -> int:
        try:
            return httpx.post(f"{url}/predict", content=body, timeout=60).status_code
        except httpx.TransportError:
            return 0

    with ThreadPoolExecutor(len(bodies)) as threads:
        return Counter(threads.map(send, bodies))


@pytest.mark.slow
def test_the_largest_images_and_bodies_together_stay_below_the_shipped_limit(
    images: dict[str, bytes], mixture: list[bytes], tmp_path: Path
) -> None:
    with (
        memory_limit(LIMIT, tmp_path) as limited,
        server_process("--checkpoint", EXPORTED, "--workers", "2", python=limited.python) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for name, image in images.items():
            assert client.post("/predict", content=image).status_code == HTTPStatus.OK, name
        assert_problem(
            client.post("/predict", content=bombs.webp_of_the_most_pixels()),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "decoding_too_large",
        )
        answers: Counter[int] = Counter()
        for _ in range(ROUNDS):
            answers += send_all(server.url, mixture)
        print(f"answers {dict(answers)}, peak {limited.peak(server.process.pid) / 1e6:.0f} of {LIMIT / 1e6:.0f} MB")
        assert set(answers) <= {200, 413, 429, 504}
        assert answers[200]
        assert server.process.poll() is None
        assert client.post("/predict", content=CAT.read_bytes()).status_code == HTTPStatus.OK
        assert limited.peak(server.process.pid) < LIMIT


@pytest.mark.slow
def test_the_same_load_ends_a_process_without_a_budget(mixture: list[bytes], tmp_path: Path) -> None:
    unlimited = ("--max-decoding-bytes", str(2**50))
    with memory_limit(LIMIT, tmp_path) as limited:
        if limited.group is None:
            pytest.skip("no control group can be made")
        with server_process("--checkpoint", EXPORTED, "--workers", "2", *unlimited, python=limited.python) as server:
            for _ in range(ROUNDS):  # the smallest files, which decode to the most, come first
                print(f"answers {dict(send_all(server.url, sorted(mixture, key=len)))}")
            assert server.process.wait(10) == -signal.SIGKILL, "killed by the kernel"
