"""More requests than the real service can answer, with the real model and real images. ``-s`` prints the figures."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import httpx
import pytest
from PIL import Image

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import EXAMPLES, encoded, noise
from tests.support.load import Load, offered, percentile, saturating
from tests.support.meter import served_and_metered
from tests.support.processes import cpu_seconds, holdings
from tests.support.servers import REPOSITORY, ServerProcess, server_process
from tests.support.waiting import until
from tests.support.wire import connected, head, read_answer

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
WORKERS, QUEUE = 2, 8
BOUND = WORKERS * (1 + QUEUE)
SIDE = 1600
ROUNDS = 3


def photographs() -> list[bytes]:
    """Return requests with the example photographs, enlarged to what a phone sends to a chat.

    Prepared exactly, they keep a CPU busy for some 20 ms each, as larger networks do with smaller images. The
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


class Work(NamedTuple):
    """Answers and refusals to some load, and the server's own CPU time for them."""

    load: Load
    cpu: float

    @property
    def answers_per_cpu_second(self) -> float:
        return len(self.load.answered) / self.cpu


def work(server: ServerProcess, load: Callable[[], Load]) -> Work:
    begun = cpu_seconds(server.process.pid)
    done = load()
    return Work(done, cpu_seconds(server.process.pid) - begun)


@pytest.mark.slow
def test_three_times_saturation_with_the_real_model(server: ServerProcess) -> None:
    """40 s. Peak and overload take turns, and the best of each counts: what else the machine does comes and goes."""
    requests = photographs()
    saturating(server.url, requests, clients=BOUND, seconds=2)
    peaks, overloads = [], []
    for _ in range(ROUNDS):
        peaks.append(work(server, lambda: saturating(server.url, requests, clients=BOUND, seconds=4)))
        rate = 3 * peaks[-1].load.throughput
        overloads.append(work(server, partial(offered, server.url, requests, rate=rate, seconds=8)))
    assert not any(peak.load.refused for peak in peaks)
    shares, medians = [], []
    for (load, _), peak in zip(overloads, peaks, strict=True):
        p99, allowed = percentile(load.answered, 0.99), 1.5 * BOUND / load.throughput
        median, slowest = (1000 * percentile(load.refused, share) for share in (0.5, 0.99))
        shares.append(p99 / allowed)
        medians.append(median)
        print(
            f"\nat three times saturation: answered {load.throughput:.0f}/s, {peak.load.throughput:.0f}/s just before; "
            f"p99 {1000 * p99:.0f} ms, allowed {1000 * allowed:.0f} ms; refused {len(load.refused)}, "
            f"median {median:.1f} ms, p99 {slowest:.1f} ms"
        )
        assert len(load.refused) > len(load.answered)
    best, kept = (max(one.answers_per_cpu_second for one in works) for works in (peaks, overloads))
    print(f"answers in a second of the server's CPU: {kept:.1f} when overloaded, {best:.1f} at saturation")
    assert min(medians) < 10
    assert min(shares) < 1
    # Neighbours that share caches cost CPU time, too. What refusing itself takes of it is measured below.
    assert kept > 0.8 * best


@pytest.fixture(scope="module")
def refusal() -> tuple[float, float]:
    """CPU seconds of the event loop for a refused photograph, and for the answer to a probe."""
    gate = threading.Event()
    app = create_app(Settings(workers=1, queue=1, deadline=300), FakeClassifier(gate=gate))
    sent = photographs()
    image = encoded(noise(40, 30), "JPEG")
    with served_and_metered(app) as (client, meter), ExitStack() as open_:
        url = str(client.base_url)

        def cost(requests: Sequence[bytes], status: bytes) -> float:
            begun = meter.seconds
            with connected(url) as connection:
                for request in requests:
                    connection.sendall(request)
                    assert read_answer(connection).startswith(b"HTTP/1.1 " + status)
            return (meter.seconds - begun) / len(requests)

        for _ in range(2):
            waiting = open_.enter_context(connected(url))
            waiting.sendall(head(Content_Length=len(image)) + image)
        until(lambda: (app.state.service.executor.running, app.state.service.executor.waiting) == (1, 1))
        probes = [head("GET", "/health/live")] * 100
        costs = [(cost(sent * 33, b"429 "), cost(probes, b"200 ")) for _ in range(5)]
        gate.set()
    return min(refused for refused, _ in costs), min(probe for _, probe in costs)


def test_a_refusal_costs_about_as_much_as_a_probe(refusal: tuple[float, float]) -> None:
    """Mostly twice as much; the body is still read and discarded."""
    refused, probe = refusal
    print(f"\n{1e6 * refused:.0f} us of CPU for a refused photograph, {1e6 * probe:.0f} us for a probe")
    assert refused < 5 * probe


@pytest.mark.slow
def test_refusing_twice_as_many_as_are_answered_takes_less_than_a_tenth_of_the_cpu(
    server: ServerProcess, refusal: tuple[float, float]
) -> None:
    """10 s. At three times saturation, two are refused for each that is answered."""
    requests = photographs()
    works = [work(server, lambda: saturating(server.url, requests, clients=BOUND, seconds=3)) for _ in range(3)]
    answer = 1 / max(work.answers_per_cpu_second for work in works)
    print(f"\n{1000 * answer:.1f} ms of CPU for an answer, {1000 * refusal[0]:.2f} ms for a refusal")
    assert 2 * refusal[0] < 0.1 * answer


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
        print(f"\n{count} bodies of {size / 2**20:.0f} MB with a budget of {most / 2**20:.0f}: {grown:.0f} MB more")
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 429 "}
        assert grown < most / 2**20 + 16
        open_.close()
        until(lambda: holdings(pid).megabytes - before < 16)
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
