"""More requests than the real service can answer, with the real model and real pictures. ``-s`` prints the figures."""

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from PIL import Image

from support.load import offered, percentile, saturating
from support.pictures import EXAMPLES, encoded
from support.processes import holdings
from support.servers import REPOSITORY, ServerProcess, server_process
from support.wire import connected, head, read_answer
from test_admission import until

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
WORKERS, QUEUE = 2, 8
BOUND = WORKERS * (1 + QUEUE)
SIDE = 1600
ROUNDS = 3


def photographs() -> list[bytes]:
    """Return requests with the example photographs, enlarged to what a phone sends to a chat.

    Prepared exactly, they keep a CPU busy for some 20 ms each, as larger networks do with smaller pictures. The
    refusals are then what they are in practice, a small part of the work, and the clients another.
    """
    requests = []
    for path in sorted(EXAMPLES.glob("*.jpg")):
        with Image.open(path) as image:
            body = encoded(image.resize((SIDE, SIDE * image.height // image.width)), "JPEG")
        requests.append(head(Content_Length=len(body)) + body)
    return requests


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    options = ("--checkpoint", MODEL, "--workers", str(WORKERS), "--queue", str(QUEUE), "--decode", "exact")
    with server_process(*options) as server:
        yield server


@pytest.mark.slow
def test_three_times_saturation_with_the_real_model(server: ServerProcess) -> None:
    """40 s. The clients share the CPUs with the server, so that all figures contain what they take.

    So does whatever else the machine does, and it comes and goes: peak and overload take turns, and the best of each
    counts.
    """
    requests = photographs()
    saturating(server.url, requests, clients=BOUND, seconds=2)
    peaks, overloads = [], []
    for _ in range(ROUNDS):
        peaks.append(saturating(server.url, requests, clients=BOUND, seconds=4))
        overloads.append(offered(server.url, requests, rate=3 * peaks[-1].throughput, seconds=8))
    assert not any(load.refused for load in peaks)
    peak = max(load.throughput for load in peaks)
    waits = [(percentile(load.answered, 0.99), 1.5 * BOUND / load.throughput) for load in overloads]
    refusals = [[1000 * percentile(load.refused, share) for share in (0.5, 0.99)] for load in overloads]
    for load, (p99, allowed), (median, slowest) in zip(overloads, waits, refusals, strict=True):
        print(
            f"\nat three times saturation: answered {load.throughput:.0f}/s, at best {peak:.0f}/s without; "
            f"p99 {1000 * p99:.0f} ms, allowed {1000 * allowed:.0f} ms; refused {len(load.refused)}, "
            f"median {median:.1f} ms, p99 {slowest:.1f} ms"
        )
        assert len(load.refused) > len(load.answered)
    # Of the rest, docs/reliability.md says what was seen: it depends on what the clients leave of the CPUs.
    assert min(median for median, _ in refusals) < 10


def test_many_large_bodies_at_once_take_no_more_memory_than_they_may() -> None:
    most, size, count = 32 * 2**20, 8 * 2**20, 40
    with server_process("--checkpoint", MODEL, "--max-receiving-bytes", str(most)) as server, ExitStack() as open_:
        pid = server.process.pid
        before = holdings(pid).megabytes
        answers = []
        for number in range(count):
            connection = open_.enter_context(connected(server.url))
            connection.sendall(head(Content_Length=size) + bytes(size - 1))
            if number >= most // size:
                answers.append(read_answer(connection))
        grown = holdings(pid).megabytes - before
        print(f"\n{count} bodies of {size / 2**20:.0f} MB with room for {most / 2**20:.0f}: {grown:.0f} MB more")
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 429 "}
        assert grown < most / 2**20 + 16
        open_.close()
        until(lambda: holdings(pid).megabytes - before < 16)
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
