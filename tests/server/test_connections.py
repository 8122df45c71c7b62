"""What one connection, or many, can hold and stop: attacks on a real process while its health is probed."""

import asyncio
import errno
import json
import os
import resource
import select
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn

import httpx
import pytest

from fuzz.connections import ENDLESS, PIPELINED, Impact, impact_of
from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.observability.metrics import Metrics
from resnet_service.server.acceptance import Acceptor
from resnet_service.server.http_protocol import BoundedProtocol
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.processes import holdings
from tests.support.servers import ServerProcess, served
from tests.support.waiting import until
from tests.support.wire import connected, head, read_answer, read_to_end

IMAGE = encoded(noise(40, 30), "JPEG")
KEY = "a-key-for-the-tests-only"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    # Bodies may take as much memory as this allows.
    process = ServerProcess("--max-receiving-bytes", str(32 * 2**20), RESNET_SERVICE_LOG_FORMAT="json")
    try:
        yield process
    finally:
        process.stop()


def impacts_of(server: ServerProcess, name: str, clients: int) -> list[Impact]:
    port = int(server.url.rpartition(":")[2])
    found = [impact_of(name, port, lambda: holdings(server.process.pid).megabytes, clients=clients) for _ in range(3)]
    print(name, [f"{impact.milliseconds:.0f} ms, {impact.megabytes:.1f} MB" for impact in found])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_one_client_neither_stops_the_service_nor_fills_its_memory(server: ServerProcess, name: str) -> None:
    impacts = impacts_of(server, name, 1)
    assert statistics.median(impact.milliseconds for impact in impacts) < 100
    assert max(impact.megabytes for impact in impacts) < 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_a_hundred_clients_neither_stop_it_nor_fill_its_memory(server: ServerProcess, name: str) -> None:
    impacts = impacts_of(server, name, 100)
    assert statistics.median(impact.milliseconds for impact in impacts) < 500
    assert max(impact.megabytes for impact in impacts) < 80


def test_bytes_of_later_requests_stay_with_the_kernel_until_their_time(server: ServerProcess) -> None:
    """60 clients send heads and read no response."""
    before = holdings(server.process.pid).megabytes
    with ExitStack() as open_:
        for _ in range(60):
            connection = open_.enter_context(connected(server.url, receive_buffer=4096))
            connection.settimeout(0.05)
            with suppress(OSError):
                connection.sendall(PIPELINED * 10_000)
        assert httpx.get(f"{server.url}/health/live", timeout=20).status_code == 200
        assert holdings(server.process.pid).megabytes - before < 60


def test_what_follows_a_request_in_work_is_not_read() -> None:
    gate, sent = threading.Event(), 0
    app = create_app(Settings(workers=1), FakeClassifier(gate=gate))
    with served(app) as client, connected(str(client.base_url)) as connection:
        connection.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
        until(lambda: app.state.service.executor.running == 1)
        connection.settimeout(0.5)
        with suppress(TimeoutError):
            while sent < 50_000_000:
                sent += connection.send(PIPELINED * 2000)
        gate.set()
    assert sent < 30_000_000  # the kernel's buffers hold some megabytes


@contextmanager
def locked() -> Iterator[str]:
    with served(create_app(Settings(api_keys=KEY), FakeClassifier())) as client:
        yield str(client.base_url)


def test_a_key_in_a_trailer_opens_nothing() -> None:
    body = b"%x\r\n%b\r\n0\r\n" % (len(IMAGE), IMAGE)
    with locked() as url:
        for fields, trailer, status in (({}, b"X-API-Key: %b\r\n" % KEY.encode(), 401), ({"X_API_Key": KEY}, b"", 200)):
            with connected(url) as connection:
                connection.sendall(head(Transfer_Encoding="chunked", **fields) + body + trailer + b"\r\n")
                assert read_answer(connection).startswith(b"HTTP/1.1 %d " % status)


def test_a_new_connection_takes_the_place_of_the_longest_idle() -> None:
    with served(create_app(Settings(max_connections=3), FakeClassifier())) as client, ExitStack() as open_:
        url = str(client.base_url)
        idle = [open_.enter_context(connected(url)) for _ in range(3)]
        for connection in idle:
            connection.sendall(head("GET", "/health/live"))
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        with connected(url) as early:  # a connection that has just become idle keeps its place
            early.sendall(head("GET", "/labels"))
            assert read_answer(early).startswith(b"HTTP/1.1 503 ")
        time.sleep(0.3)
        with connected(url) as late:
            late.sendall(head("GET", "/labels"))
            assert read_answer(late).startswith(b"HTTP/1.1 200 ")
            assert idle[0].recv(1) == b""
            for connection in idle[1:]:
                connection.sendall(head("GET", "/labels"))
                assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


@contextmanager
def busy(connections: int) -> Iterator[tuple[str, httpx.Client]]:
    """Serve with as many connections allowed as there are, all of which wait for an answer."""
    gate = threading.Event()
    app = create_app(Settings(max_connections=connections, workers=1), FakeClassifier(gate=gate))
    with served(app) as client, ExitStack() as open_:
        url = str(client.base_url)
        client.close()
        try:
            for _ in range(connections):
                connection = open_.enter_context(connected(url))
                connection.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            until(lambda: app.state.service.executor.running + app.state.service.executor.waiting == connections)
            time.sleep(0.3)  # so long, an idle connection would keep its place
            yield url, client
        finally:
            gate.set()


def test_if_all_are_busy_only_probes_are_answered() -> None:
    with busy(3) as (url, _):
        for path, status in (("/health/live", 200), ("/metrics", 200), ("/labels", 503), ("/health/ready", 200)):
            for method in ("GET", "HEAD"):
                with connected(url) as connection:
                    connection.sendall(head(method, path))
                    answer = read_to_end(connection)
                assert answer.startswith(b"HTTP/1.1 %d " % status), path
                assert b"connection: close" in answer.lower()
                assert (b'"code":"too_many_connections"' in answer) == (status == 503 and method == "GET")
                assert answer.endswith(b"\r\n\r\n") == (method == "HEAD")


def test_a_probe_is_known_by_its_whole_path() -> None:
    paths = {"http://h/health/live": 200, "/metrics?x=1": 200, "/metricsfoo": 503, "http://h/labels": 503}
    with busy(1) as (url, _):
        for path, status in paths.items():
            with connected(url) as connection:
                connection.sendall(head("GET", path))
                assert read_to_end(connection).startswith(b"HTTP/1.1 %d " % status), path


def test_nothing_but_reading_a_probe_holds_a_reserved_connection() -> None:
    requests = (
        head("POST", "/health/live"),
        head("GET", "/health/live", Content_Length=9),
        head("GET", "/metrics", Transfer_Encoding="chunked"),
    )
    with busy(1) as (url, _):
        for request in requests:
            with connected(url) as connection:
                connection.sendall(request)
                assert read_to_end(connection).startswith(b"HTTP/1.1 503 "), request


def test_an_evicted_client_that_reads_nothing_holds_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    made = BoundedProtocol.connection_made

    def small(self: BoundedProtocol, transport: asyncio.Transport) -> None:
        """Keep the response out of the kernel's buffer, which may hold all of it."""
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    monkeypatch.setattr(BoundedProtocol, "connection_made", small)
    app = create_app(Settings(max_connections=1), FakeClassifier())
    with served(app) as client, ExitStack() as open_:
        url = str(client.base_url)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(4):
            connection = open_.enter_context(connected(url, receive_buffer=4096))
            connection.sendall(head("GET", "/docs/swagger-ui-bundle.js"))
            time.sleep(0.5)
        # Each client has a descriptor in this process, and the last one's connection another.
        until(lambda: len(os.listdir("/proc/self/fd")) <= before + 5, seconds=2)


def test_what_was_accepted_just_before_the_end_is_known_to_it() -> None:
    """Otherwise a client that sends nothing would delay the end: it is told to close only if it is known."""
    made: list[asyncio.Protocol] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)

    async def accept_and_close() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
            acceptor = Acceptor(listener, Protocol, Metrics())
            acceptor._accept()
            await acceptor.close()
            assert len(made) == 1

    asyncio.run(accept_and_close())


def test_the_error_of_one_connection_does_not_stop_accepting() -> None:
    """accept(2) passes on errors of the network; only used-up resources are worth a pause."""
    errors: list[OSError] = [OSError(errno.EPROTO, "Protocol error"), BlockingIOError()]

    class Listener(socket.socket):
        def accept(self) -> NoReturn:
            raise errors.pop(0)

    async def accept_and_close() -> None:
        with Listener() as listener:
            listener.bind(("127.0.0.1", 0))
            metrics = Metrics()
            acceptor = Acceptor(listener, asyncio.Protocol, metrics)
            acceptor._accept()
            await acceptor.close()
            assert b'reason="out_of_resources"} 1' not in metrics.exposition("")[0]
            assert not errors

    asyncio.run(accept_and_close())


def test_silent_connections_beyond_the_reserve_are_closed_for_new_ones() -> None:
    with busy(1) as (url, _), ExitStack() as open_:
        silent = [open_.enter_context(connected(url)) for _ in range(70)]
        # Of connections that were accepted in the same turn of the event loop, any may be the oldest.
        readable, _, _ = select.select(silent, [], [], 5)
        assert readable
        assert readable[0].recv(1) == b""


def test_probes_are_answered_at_2000_idle_connections(server: ServerProcess) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as open_:
        for _ in range(2000):
            open_.enter_context(connected(server.url))
        for path in ("/health/live", "/health/ready", "/metrics"):
            begun = time.perf_counter()
            assert httpx.get(server.url + path, timeout=20).status_code == 200
            assert time.perf_counter() - begun < 2


def test_a_client_that_sends_no_more_gets_all_its_answers(server: ServerProcess) -> None:
    with connected(server.url) as connection:
        connection.sendall(head(Content_Length=len(IMAGE)) + IMAGE + head("GET", "/labels"))
        connection.shutdown(socket.SHUT_WR)
        received = read_to_end(connection)
    assert received.count(b"HTTP/1.1 200 ") == 2
    assert b'"classes"' in received


@pytest.mark.parametrize("path", ["/predict", "/labels"])
def test_no_request_is_lost_where_a_turn_ends(server: ServerProcess, path: str) -> None:
    """Whether the application reads the body before them, or refuses the request before it has arrived."""
    begin = head("POST", path, Transfer_Encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(IMAGE), IMAGE)
    for number in range(1, 14):
        with connected(server.url) as connection:
            connection.sendall(begin + head("GET", "/labels") * number)
            connection.shutdown(socket.SHUT_WR)
            answers = read_to_end(connection).count(b"HTTP/1.1 200 ")
        assert answers == number + (path == "/predict")


def test_a_client_that_has_closed_is_not_one_that_sends_no_more() -> None:
    gate = threading.Event()
    app = create_app(Settings(workers=1), FakeClassifier(gate=gate))
    with served(app) as client:
        executor = app.state.service.executor
        with connected(str(client.base_url)) as first:
            first.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            until(lambda: executor.running == 1)
            with connected(str(client.base_url)) as leaving:
                leaving.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
                until(lambda: executor.waiting == 1)
            until(lambda: executor.waiting == 0)
            gate.set()
            assert read_answer(first).startswith(b"HTTP/1.1 200 ")


def count(server: ServerProcess, line: str) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=20).text
    return sum(float(found.rpartition(" ")[2]) for found in text.splitlines() if found.startswith(line))


def test_each_pipelined_request_is_counted_and_logged_once(server: ServerProcess) -> None:
    labels = 'resnet_service_requests_total{method="GET",route="/labels",status="200"}'
    refused = 'resnet_service_requests_total{method="other",route="unparsed",status="400"}'
    before = count(server, labels), count(server, refused)
    name = f"pipelined-{time.monotonic_ns()}"
    with connected(server.url) as connection:
        connection.sendall(head("GET", "/labels", X_Request_ID=name) * 5 + b"nonsense\r\n\r\n")
        received = read_to_end(connection)
    assert received.count(b"HTTP/1.1 200 ") == 5
    assert received.count(b"HTTP/1.1 400 ") == 1
    assert (count(server, labels), count(server, refused)) == (before[0] + 5, before[1] + 1)

    def lines() -> int:
        return sum(json.loads(line).get("request_id") == name for line in server.log.splitlines())

    until(lambda: lines() >= 5)
    time.sleep(0.1)
    assert lines() == 5
