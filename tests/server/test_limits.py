"""Clients that send too much, too slowly, or do not read, each over a real socket."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from resnet_service.api.app import create_app
from resnet_service.api.middleware.body_limits import BodyBudget
from resnet_service.errors import InvalidSettings
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings, load_settings
from tests.support.images import encoded, noise
from tests.support.meter import LoopMeter, served_and_metered
from tests.support.problems import assert_problem
from tests.support.servers import served
from tests.support.waiting import until
from tests.support.wire import connected, drip, head, read_answer, read_to_end

IMAGE = encoded(noise(40, 30), "JPEG")


@contextmanager
def limited(**settings: Any) -> Iterator[str]:
    """Serve with short limits; yield the URL."""
    short = {"header_seconds": 0.5, "body_seconds": 0.5, "send_seconds": 0.5, **settings}
    with served(create_app(Settings(**short), FakeClassifier())) as client:
        yield str(client.base_url)
        assert client.post("/predict", content=IMAGE).status_code == 200


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with limited() as url:
        yield url


def answer(received: bytes) -> httpx.Response:
    """Parse an answer as it came over the wire."""
    lines, _, body = received.partition(b"\r\n\r\n")
    first, *fields = lines.decode().split("\r\n")
    headers = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
    return httpx.Response(int(first.split()[1]), headers=headers, content=body)


def test_a_head_that_never_ends_is_408(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(head()[:-2])
        response = answer(read_to_end(connection))
    assert_problem(response, HTTPStatus.REQUEST_TIMEOUT, "request_too_slow", "headers")
    assert response.headers["connection"] == "close"


# The bytes to send at once, and those to send one by one.
DRIPS = {
    "silence": (b"", b""),
    "head": (b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1000),
    "lines": (b"", b"\r\n"),
    "lines later": (head("GET", "/health/live"), b"\r\n"),
    "second head": (head("GET", "/health/live"), b"GET /health/live HTTP/1.1\r\nX: " + b"x" * 1000),
    "unread body": (head("GET", "/health/live", Content_Length=1000), b"x"),
    "body": (head("POST", "/predict", Content_Length=1000), b"x"),
    "chunks": (head("POST", "/predict", Transfer_Encoding="chunked"), b"1\r\nx\r\n"),
    "extension": (head("POST", "/predict", Transfer_Encoding="chunked") + b"1;", b"extension"),
}


@pytest.fixture(scope="module")
def lasted(url: str) -> Iterator[dict[str, Future[float]]]:
    """Return the seconds that each was connected; in parallel, since all of them mostly wait."""

    def seconds(first: bytes, dripped: bytes) -> float:
        with connected(url) as connection:
            begun = time.monotonic()
            connection.sendall(first)
            if dripped:
                drip(connection, dripped)
            else:
                read_to_end(connection)
            return time.monotonic() - begun

    with ThreadPoolExecutor(len(DRIPS)) as clients:
        yield {name: clients.submit(seconds, *sent) for name, sent in DRIPS.items()}


@pytest.mark.parametrize("name", DRIPS)
def test_clients_that_drip_are_disconnected(name: str, lasted: dict[str, Future[float]]) -> None:
    assert lasted[name].result(60) < 10


def test_a_body_that_never_ends_is_408(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(head(Content_Length=1000) + b"x")
        response = answer(read_to_end(connection))
    assert_problem(response, HTTPStatus.REQUEST_TIMEOUT, "request_too_slow", "body")
    assert response.headers["connection"] == "close"


def test_a_body_below_the_rate_is_408_long_before_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_service.api.middleware.body_limits._GRACE", 0.3)
    with limited(body_seconds=60, min_body_rate=1000) as url, connected(url) as connection:
        connection.sendall(head(Content_Length=100_000))
        assert drip(connection, b"x") < 5
    with limited(body_seconds=60, min_body_rate=1000) as url, connected(url) as connection:
        connection.sendall(head(Content_Length=len(IMAGE)))
        for start in range(0, len(IMAGE), 100):
            connection.sendall(IMAGE[start:][:100])
            time.sleep(0.05)
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 2_000_000,
        b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 300_000 + b"\r\n",
    ],
    ids=["URL", "field", "fields", "endless field", "endless fields"],
)
def test_a_head_too_large_is_431(url: str, sent: bytes) -> None:
    with connected(url) as connection:
        sender = threading.Thread(target=_send_all, args=(connection, sent))
        sender.start()
        response = answer(read_to_end(connection))
        sender.join(10)
    assert_problem(response, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "16384 bytes")


def _send_all(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # it may have been refused already
        connection.sendall(data)


def test_an_endless_head_behind_a_request_in_work_ends_the_connection() -> None:
    gate = threading.Event()
    with served(create_app(Settings(workers=1), FakeClassifier(gate=gate))) as client:
        with connected(str(client.base_url)) as connection:
            connection.sendall(head(Content_Length=len(IMAGE)) + IMAGE + b"GET / HTTP/1.1\r\nX: ")
            _send_all(connection, b"x" * 50_000_000)
            assert read_to_end(connection).count(b" 200 ") == 0
        gate.set()


def test_a_head_at_the_limits_is_answered(url: str) -> None:
    for fields in ({f"X{number}": "x" for number in range(99)}, {"X": "x" * 16_000}):
        with connected(url) as connection:
            connection.sendall(head("GET", "/health/live", **fields))
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        head(Content_Length=3, Transfer_Encoding="chunked") + b"0\r\n\r\n",
        head(Content_Length="3, 4") + b"abc",
        head(Content_Length="-1"),
        head(Transfer_Encoding="chunked") + b"x\r\n",
        head(Transfer_Encoding="chunked") + b"ffffffffffffffffff\r\n",
        head(Transfer_Encoding="chunked") + b"1\r\nab\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[-30:]),
)
def test_what_two_servers_could_read_differently_is_refused(url: str, sent: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(sent)
        received = read_to_end(connection)
    assert received.startswith(b"HTTP/1.1 4")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in received
    assert b"application/problem+json" in received


def test_refused_clients_that_stay_are_disconnected(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")
        begun = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begun < 10:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - begun < 5


def test_a_body_in_one_byte_chunks_is_a_body(url: str) -> None:
    with connected(url) as connection:
        chunks = b"".join(b"1\r\n" + IMAGE[at : at + 1] + b"\r\n" for at in range(len(IMAGE)))
        connection.sendall(head(Transfer_Encoding="chunked") + chunks + b"0\r\n\r\n")
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_clients_that_do_not_read_are_disconnected() -> None:
    """Requests go in, pipelined, until the kernel's buffers are full of answers."""
    with limited() as url, connected(url, receive_buffer=1024) as connection:
        begun = time.monotonic()
        connection.settimeout(0.1)
        while time.monotonic() - begun < 10:
            try:
                connection.sendall(head("GET", "/web/app.js") * 20)
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            raise AssertionError("it is still connected")


BODY = 20_000


@contextmanager
def holding(most: int = 50_000, **settings: Any) -> Iterator[tuple[str, BodyBudget]]:
    """Serve with a budget of ``most`` bytes for bodies; at the end, none must be held."""
    chosen = Settings(max_body_bytes=BODY, max_batch_bytes=BODY, max_receiving_bytes=most, **settings)
    app = create_app(chosen, FakeClassifier())
    held: BodyBudget = app.state.body_budget
    with served(app) as client:
        yield str(client.base_url), held
        assert client.post("/predict", content=IMAGE).status_code == 200
        until(lambda: held.used == 0)


def test_a_body_beyond_the_budget_is_429_before_it_is_sent() -> None:
    with holding() as (url, held), ExitStack() as open_:
        stalled = [open_.enter_context(connected(url)) for _ in range(2)]
        for connection in stalled:
            connection.sendall(head(Content_Length=BODY) + bytes(BODY - 1))
        until(lambda: held.used == 2 * (BODY - 1))
        with connected(url) as refused:
            refused.sendall(head(Content_Length=BODY))
            begun = time.monotonic()
            response = answer(read_answer(refused))
            assert time.monotonic() - begun < 1
        assert_problem(response, HTTPStatus.TOO_MANY_REQUESTS, "too_many_bytes", "Try again in 1 s")
        assert response.headers["retry-after"] == "1"
        with connected(url) as small:
            small.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
            assert read_answer(small).startswith(b"HTTP/1.1 200 ")
        stalled[0].sendall(b"x")
        assert read_answer(stalled[0]).startswith(b"HTTP/1.1 415 ")
        with connected(url) as accepted:
            accepted.sendall(head(Content_Length=BODY) + bytes(BODY))
            assert read_answer(accepted).startswith(b"HTTP/1.1 415 ")


def test_bodies_without_a_length_are_counted_as_they_arrive() -> None:
    chunk = b"1000\r\n" + bytes(0x1000) + b"\r\n"
    with holding(most=25_000) as (url, held), connected(url) as stalled, connected(url) as late:
        stalled.sendall(head(Transfer_Encoding="chunked") + chunk * 4)
        until(lambda: held.used == 4 * 0x1000)
        late.sendall(head(Transfer_Encoding="chunked") + chunk * 4)
        assert read_answer(late).startswith(b"HTTP/1.1 429 ")
        until(lambda: held.used == 4 * 0x1000)


def test_bytes_are_held_until_the_answer_and_a_promise_holds_none() -> None:
    gate = threading.Event()
    app = create_app(Settings(workers=1), FakeClassifier(gate=gate))
    held: BodyBudget = app.state.body_budget
    with served(app) as client, connected(str(client.base_url)) as asking, connected(str(client.base_url)) as promising:
        promising.sendall(head(Content_Length=1_000_000))
        asking.sendall(head(Content_Length=len(IMAGE)) + IMAGE)
        until(lambda: app.state.service.executor.running == 1)
        assert held.used == len(IMAGE)
        gate.set()
        assert read_answer(asking).startswith(b"HTTP/1.1 200 ")
        until(lambda: held.used == 0)


def test_however_a_request_ends_its_bytes_are_given_back() -> None:
    form = b'--limit\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--limit--\r\n'
    ends = [
        head(Content_Length=5) + b"01234",
        head(Content_Length=len(form), Content_Type="multipart/form-data; boundary=limit") + form,
        head(Content_Length=5, Content_Type="multipart/form-data; boundary=limit") + b"01234",
        head(path="/nowhere", Content_Length=5) + b"01234",
        head(Content_Length=1000) + bytes(999),  # incomplete
        head(Transfer_Encoding="chunked") + b"5000\r\n" + bytes(0x5000) + b"\r\n",  # too large
        head(Transfer_Encoding="chunked") + b"5\r\n01234\r\nnonsense\r\n",
    ]
    with holding(body_seconds=0.5) as (url, _):
        for sent in ends:
            with connected(url) as connection:
                connection.sendall(sent)
                assert read_answer(connection).startswith(b"HTTP/1.1 4")
            with connected(url) as leaver:
                leaver.sendall(sent)


def test_a_budget_for_less_than_one_body_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="max_receiving_bytes"):
        load_settings(max_receiving_bytes=BODY, max_body_bytes=BODY + 1)


@pytest.fixture(scope="module")
def metered() -> Iterator[tuple[str, LoopMeter]]:
    app = create_app(Settings(), FakeClassifier())
    with served_and_metered(app) as (client, meter):
        yield str(client.base_url), meter


def cost_of(form: bytes, piece: int, metered: tuple[str, LoopMeter]) -> tuple[float, float, bytes]:
    """Send a form; return the loop's CPU seconds for it, the longest of its turns, and the answer."""
    url, meter = metered
    with connected(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        meter.longest_turn()
        begun = meter.seconds
        connection.sendall(head(Content_Length=len(form), Content_Type="multipart/form-data; boundary=limit"))
        for start in range(0, len(form), piece):
            connection.sendall(form[start : start + piece])
        received = read_answer(connection)
    return meter.seconds - begun, meter.longest_turn(), received


PART = b'\r\n--limit\r\nContent-Disposition: form-data; name="f"\r\n\r\nx'
FILE = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
END = b"\r\n--limit--\r\n"
MANY = Settings().max_body_bytes - 1000
FORMS = {
    "preamble": b"x" * MANY + END,
    "empty lines": b"\r\n" * (MANY // 2) + FILE,
    "hyphens": b"\r\n-" * (MANY // 3) + FILE,
    "almost a limit before the first": b"\r\n--limi" * (MANY // 8) + FILE,
    "headers": FILE + b"".join(b"X%d: x\r\n" % number for number in range(MANY // 12)) + b"\r\nx",
    "header": FILE + b"X: " + b"x" * MANY,
    "header's name": FILE + b"X" * MANY,
    "header's parameters": FILE[:-2] + b'; a="x"' * (MANY // 7),
    "CRLF": FILE + b"\r\n" + b"\r\n" * (MANY // 2) + END,
    "almost a limit": FILE + b"\r\n" + b"\r\n--limi" * (MANY // 8) + END,
    "parts": FILE + b"\r\n" + PART * (MANY // len(PART)),
    "empty parts": b"--limit" + b"\r\n\r\n\r\n--limit" * (MANY // 13),
    "end": FILE + b"\r\nx\r\n--limit--" + b"\r\n" * (MANY // 2),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("piece", [65_536, 100], ids=["at once", "in pieces"])
def test_no_form_costs_much_more_than_an_image_of_its_size(
    name: str, piece: int, metered: tuple[str, LoopMeter]
) -> None:
    """None blocks the event loop for a tenth of a second, so that probes are answered meanwhile."""
    form, plain = FORMS[name], FILE + b"\r\n" + b"x" * MANY + END
    if piece == 100:
        form, plain = (body[: 2**18] + END for body in (form, plain))  # the cost of a piece is the network's
    usual = min(cost_of(plain, piece, metered)[0] for _ in range(3))
    cost, turn, received = cost_of(form, piece, metered)
    assert int(received[9:12]) in (400, 415)
    assert cost < 4 * usual + 0.05
    assert turn < 0.1
