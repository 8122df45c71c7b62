"""Who may infer, over a real socket, with answers that are held back by a gate."""

import http.client
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

import httpx
import pytest
from fastapi.routing import APIRoute

from resnet_service.api.admission import InferenceRoute
from resnet_service.api.app import ROUTERS, create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.gated import gated
from tests.support.images import encoded, noise
from tests.support.problems import assert_problem
from tests.support.servers import served
from tests.support.waiting import until
from tests.support.wire import connected, head, read_answer, read_to_end

IMAGE = encoded(noise(40, 30), "JPEG")
LARGE = bytes(5_000_000)


def test_beyond_the_queue_it_is_429_with_a_time_to_come_back() -> None:
    with gated() as server:
        accepted = server.fill(3)
        response = server.client.post("/predict", content=IMAGE)
        assert_problem(response, HTTPStatus.TOO_MANY_REQUESTS, "overloaded", "Try again in")
        assert int(response.headers["retry-after"]) >= 1
        assert server.client.get("/health/live").status_code == 200
        server.gate.set()
        assert [future.result(10).status_code for future in accepted] == [200] * 3
        assert server.client.post("/predict", content=IMAGE).status_code == 200


def test_429_comes_before_the_body_and_at_once() -> None:
    with gated() as server:
        server.fill(3)
        times = []
        for _ in range(20):
            with connected(str(server.client.base_url)) as connection:
                begun = time.perf_counter()
                connection.sendall(head(Content_Length=5_000_000))
                assert read_answer(connection).startswith(b"HTTP/1.1 429 ")
                times.append(time.perf_counter() - begun)
        assert sorted(times)[len(times) // 2] < 0.01


def with_httpx(url: str) -> tuple[int, str]:
    response = httpx.post(url, content=LARGE, timeout=20)
    return response.status_code, response.json()["code"]


def with_httpx_in_chunks(url: str) -> tuple[int, str]:
    response = httpx.post(url, content=iter([LARGE[:50_000]] * 100), timeout=20)
    return response.status_code, response.json()["code"]


def with_urllib(url: str) -> tuple[int, str]:
    """It asks for the connection to be closed."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, LARGE), timeout=20)  # noqa: S310 - our own server
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "overloaded" if b'"overloaded"' in error.read() else ""
    raise AssertionError


def with_curl(url: str, *arguments: str) -> tuple[int, str]:
    """It waits for `100 Continue` with bodies of this size."""
    command = ["curl", "-sS", "-m", "20", "-w", "%{http_code}", "--data-binary", "@-", *arguments, url]
    done = subprocess.run(command, input=LARGE, capture_output=True, timeout=30, check=True)
    return int(done.stdout[-3:]), "overloaded" if b'"overloaded"' in done.stdout else ""


def with_curl_at_once(url: str) -> tuple[int, str]:
    return with_curl(url, "-H", "Expect:", "-H", "Connection: close")


CLIENTS = [with_httpx, with_httpx_in_chunks, with_urllib, with_curl, with_curl_at_once]


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_that_are_still_sending_can_read_the_429(client: Callable[[str], tuple[int, str]]) -> None:
    with gated() as server:
        server.fill(3)
        for _ in range(3):
            assert client(f"{server.client.base_url}/predict") == (429, "overloaded")


def test_a_client_that_waits_for_100_continue_learns_that_the_connection_closes() -> None:
    """Whether its body would follow after all is not to be known, so nothing can follow."""
    with gated() as server:
        server.fill(3)
        with connected(str(server.client.base_url)) as connection:
            connection.sendall(head(Content_Length=5_000_000, Expect="100-continue"))
            begun = time.monotonic()
            received = read_to_end(connection)
            assert time.monotonic() - begun < 2
        assert received.startswith(b"HTTP/1.1 429 ")
        assert b"connection: close" in received


def test_a_failed_request_releases_its_slot() -> None:
    with gated(queue=0) as server:
        server.gate.set()
        for _ in range(3):
            assert server.client.post("/predict", content=b"").status_code == 400
            assert server.client.post("/predict", content=b"no image").status_code == 415
            assert server.client.post("/predict?top_k=0", content=IMAGE).status_code == 422
        until(lambda: server.executor.waiting == 0)
        assert server.client.post("/predict", content=IMAGE).status_code == 200


def test_a_slow_body_holds_no_slot() -> None:
    with gated(queue=0) as server:
        server.gate.set()
        with connected(str(server.client.base_url)) as slow:
            slow.sendall(head(Content_Length=len(IMAGE)) + IMAGE[:10])
            until(lambda: server.executor.waiting == 1)
            until(lambda: server.executor.waiting == 0)
            assert server.client.post("/predict", content=IMAGE).status_code == 200
            slow.sendall(IMAGE[10:])
            assert read_answer(slow).startswith(b"HTTP/1.1 200 ")


def test_a_slow_body_that_comes_to_a_full_queue_is_429() -> None:
    with gated(queue=0) as server, connected(str(server.client.base_url)) as slow:
        slow.sendall(head(Content_Length=len(IMAGE)) + IMAGE[:10])
        until(lambda: server.executor.waiting == 1)
        until(lambda: server.executor.waiting == 0)
        server.fill(1)
        slow.sendall(IMAGE[10:])
        assert read_answer(slow).startswith(b"HTTP/1.1 429 ")


def test_the_deadline_is_504_and_the_work_is_skipped() -> None:
    with gated(deadline=0.3) as server:
        asked = [server.ask() for _ in range(3)]
        for future in asked:
            assert_problem(future.result(10), HTTPStatus.GATEWAY_TIMEOUT, "deadline_exceeded", "0.3 s")
        server.gate.set()
        until(lambda: server.executor.running == 0)
        assert server.classifier.started == 1


def test_work_is_skipped_when_its_client_has_left(caplog: pytest.LogCaptureFixture) -> None:
    with gated() as server:
        server.fill(1)
        until(lambda: server.executor.running == 1)
        with connected(str(server.client.base_url)) as leaver:
            leaver.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            until(lambda: server.executor.waiting == 1)
        until(lambda: server.executor.waiting == 0)
        server.gate.set()
        until(lambda: server.executor.running == 0)
        assert server.classifier.started == 1
    assert "Traceback" not in caplog.text


def test_every_route_that_takes_a_body_is_admitted() -> None:
    found = [route for router in ROUTERS for route in router.routes]
    assert all(isinstance(route, APIRoute) for route in found)
    posting = [route for route in found if isinstance(route, APIRoute) and route.methods != {"GET"}]
    assert posting
    assert all(isinstance(route, InferenceRoute) for route in posting)


class Load(NamedTuple):
    throughput: float
    seconds: list[float]
    refusals: list[float]


def load(url: str, clients: int, seconds: float) -> Load:
    """Ask from ``clients`` threads for ``seconds``; refused requests are repeated after 50 ms."""
    answered: list[float] = []
    refused: list[float] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        # Not httpx, whose own cost under 30 threads would be most of what is measured.
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        while time.monotonic() < end:
            begun = time.perf_counter()
            connection.request("POST", "/predict", IMAGE)
            answer = connection.getresponse()
            answer.read()
            spent = time.perf_counter() - begun
            if answer.status == 200:
                answered.append(spent)
            else:
                assert answer.status == 429
                refused.append(spent)
                time.sleep(0.05)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 30)
    return Load(len(answered) / seconds, sorted(answered), sorted(refused))


@pytest.mark.slow
def test_three_times_saturation_costs_neither_latency_nor_throughput() -> None:
    """An image takes 50 ms of no CPU, so that the clients beside it do not take the server's; 18 s.

    Peak and overload take turns, and the best of each counts: what else the machine does comes and goes.
    """
    workers, queue = 2, 4
    bound = workers * (1 + queue)
    app = create_app(Settings(workers=workers, queue=queue), FakeClassifier(seconds=0.05))
    with served(app) as client:
        url = str(client.base_url)
        peaks, overloads = zip(
            *((load(url, clients=bound, seconds=3), load(url, clients=3 * bound, seconds=3)) for _ in range(3)),
            strict=True,
        )
    assert not any(peak.refusals for peak in peaks)
    assert all(overload.refusals for overload in overloads)
    assert max(overload.throughput for overload in overloads) > 0.9 * max(peak.throughput for peak in peaks)
    waits = [overload.seconds[int(0.99 * len(overload.seconds))] * overload.throughput for overload in overloads]
    assert min(waits) < 1.5 * bound
    assert min(overload.refusals[len(overload.refusals) // 2] for overload in overloads) < 0.01
