"""Requests with an ambiguous end, over a real socket.

If a proxy and a server disagree where a request ends, an attacker can insert a request before another client's (request
smuggling). Each body here contains a request for ``/labels``; the server must not answer it, unless it is a request for
every reader.
"""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.images import encoded, noise
from tests.support.servers import served
from tests.support.wire import connected, head, read_to_end

IMAGE = encoded(noise(20, 10), "PNG")
HIDDEN = b"GET /labels HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(create_app(Settings(header_seconds=1, body_seconds=1), FakeClassifier())) as client:
        yield str(client.base_url)
        assert client.post("/predict", content=IMAGE).status_code == 200


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def exchange(url: str, *sent: bytes) -> bytes:
    """Send pieces, and read until the server closes, which it does after a refusal and after ``LAST``."""
    with connected(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # it may have refused, and closed, before all was sent
            for piece in sent:
                connection.sendall(piece)
        return read_to_end(connection)


def field(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: test\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(HIDDEN)

AMBIGUOUS = {
    "length and chunks": field(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "chunks and length": field(CHUNKED, LENGTH, body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": field(b"Content-Length: 0", LENGTH, body=HIDDEN),
    "two lengths, the other first": field(LENGTH, b"Content-Length: 0", body=HIDDEN),
    "lengths in a list": field(b"Content-Length: 0, %d" % len(HIDDEN), body=HIDDEN),
    "length with a sign": field(b"Content-Length: +0", body=HIDDEN),
    "negative length": field(b"Content-Length: -1", body=HIDDEN),
    "length in hexadecimal": field(b"Content-Length: 0x0", body=HIDDEN),
    "length with a space within": field(b"Content-Length: 0 0", body=HIDDEN),
    "length of no number": field(b"Content-Length: ", body=HIDDEN),
    "length beyond 64 bits": field(b"Content-Length: 18446744073709551616", body=HIDDEN),
    "unknown coding": field(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks not last": field(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + HIDDEN),
    "space before the colon": field(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + HIDDEN),
    "space before the name": field(b" Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "folded": field(b"X: x", b" Transfer-Encoding: chunked", LENGTH, body=HIDDEN),
    "folded value": field(b"Transfer-Encoding:", b" chunked", LENGTH, body=b"0\r\n\r\n" + HIDDEN),
    "NUL in a name": field(b"Transfer-\0Encoding: chunked", LENGTH, body=HIDDEN),
    "NUL in a value": field(b"X: a\0b", LENGTH, body=HIDDEN),
    "bare CR in a value": field(b"X: a\rTransfer-Encoding: chunked", LENGTH, body=HIDDEN),
    "no colon": field(b"Transfer-Encoding chunked", LENGTH, body=HIDDEN),
    "size of no number": field(CHUNKED, body=b"x\r\n" + HIDDEN),
    "negative size": field(CHUNKED, body=b"-1\r\n" + HIDDEN),
    "size in 0x": field(CHUNKED, body=b"0x0\r\n\r\n" + HIDDEN),
    "size beyond 64 bits": field(CHUNKED, body=b"10000000000000000\r\n\r\n" + HIDDEN),
    "size with a space": field(CHUNKED, body=b"0 1\r\n\r\n" + HIDDEN),
    "bare LF after the size": field(CHUNKED, body=b"1\nx\n0\n\n" + HIDDEN),
    "bare CR after the size": field(CHUNKED, body=b"1\rx\r\n0\r\n\r\n" + HIDDEN),
    "no end of a chunk": field(CHUNKED, body=b"1\r\nx0\r\n\r\n" + HIDDEN),
    "chunk longer than its size": field(CHUNKED, body=b"1\r\nxx\r\n0\r\n\r\n" + HIDDEN),
    "bare LF in a chunk's end": field(CHUNKED, body=b"1\r\nx\n0\r\n\r\n" + HIDDEN),
    "bare LF in a trailer": field(CHUNKED, body=b"0\r\nA: b\n\n" + HIDDEN),
    "bare LF instead of trailers": field(CHUNKED, body=b"0\r\n\n" + HIDDEN),
    "folded trailer": field(CHUNKED, body=b"0\r\nA: b\r\n c\r\n\r\n" + HIDDEN),
    "LF in an extension": field(CHUNKED, body=b"0;a\nb\r\n\r\n" + HIDDEN),
    "bad trailer": field(CHUNKED, body=b"0\r\nX : y\r\n\r\n" + HIDDEN),
    "HTTP/1.0 with chunks and length": b"POST /predict HTTP/1.0\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "HTTP/1.10": b"GET /health/live HTTP/1.10\r\n\r\n" + HIDDEN,
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "unknown method": b"GE\x00T /labels HTTP/1.1\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_ambiguous_is_refused_and_the_connection_ends(url: str, sent: bytes) -> None:
    received = exchange(url, sent, LAST)
    assert statuses(received) in ([400], [408]), received
    assert b"connection: close" in received.lower()
    assert b'"classes"' not in received


@pytest.mark.parametrize("size", [1, 2, 7])
def test_it_does_not_matter_in_what_pieces_a_request_comes(url: str, size: int) -> None:
    chunks = b"".join(b"1\r\n" + IMAGE[at : at + 1] + b"\r\n" for at in range(40)) + b"0\r\n\r\n"
    sent = field(CHUNKED, body=chunks) + LAST
    received = exchange(url, *(sent[at : at + size] for at in range(0, len(sent), size)))
    assert statuses(received) == [422, 200]


def test_a_request_without_a_version_is_refused(url: str) -> None:
    assert statuses(exchange(url, b"GET /labels\r\n\r\n" + HIDDEN, LAST)) == [400]


def test_a_space_behind_a_size_is_ignored(url: str) -> None:
    """All readers that accept it agree on where the body ends."""
    received = exchange(url, field(CHUNKED, body=b"%x \r\n%b\r\n0 \r\n\r\n" % (len(IMAGE), IMAGE)) + LAST)
    assert statuses(received) == [200, 200]


def test_pipelined_requests_are_answered_in_their_order(url: str) -> None:
    image = head(Content_Length=len(IMAGE)) + IMAGE
    chunked = field(CHUNKED, body=b"%x\r\n" % len(IMAGE) + IMAGE + b"\r\n0\r\nX-Trailer: y\r\n\r\n")
    wrong = head("GET", "/nothing")
    received = exchange(url, image + HIDDEN + wrong + chunked + image + LAST)
    assert statuses(received) == [200, 200, 404, 200, 200, 200]
    bodies = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 ")[1:]]
    kinds = [sorted(json.loads(body))[0] for body in bodies]
    assert kinds == ["image", "classes", "code", "image", "image", "status"]


@pytest.mark.parametrize(
    "first",
    [
        head("GET", "/health/live", Content_Length=len(HIDDEN)),
        head("POST", "/nothing", Content_Length=len(HIDDEN)),
        head("DELETE", "/predict", Content_Length=len(HIDDEN)),
        head("POST", "/predict", Content_Length=len(HIDDEN), Content_Type="text/plain"),
        head("POST", "/predict?top_k=x", Content_Length=len(HIDDEN)),
        head("POST", "/predict", Content_Length=len(HIDDEN), Content_Type="multipart/form-data; boundary=x"),
    ],
    ids=["body of a GET", "404", "405", "415", "422", "no form"],
)
@pytest.mark.parametrize("pieces", [1, 2], ids=["at once", "later"])
def test_an_unread_body_is_not_the_next_request(url: str, first: bytes, pieces: int) -> None:
    sent = [first + HIDDEN + LAST] if pieces == 1 else [first, HIDDEN, LAST]
    received = exchange(url, *sent)
    found = statuses(received)
    assert found[-1] == 200
    assert len(found) <= 2
    assert b'"classes"' not in received


def test_one_byte_chunks_of_a_large_body_are_counted_as_received(url: str) -> None:
    with served(create_app(Settings(max_body_bytes=20_000), FakeClassifier())) as client:
        sent = field(CHUNKED, body=b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")
        received = exchange(str(client.base_url), sent + LAST)
    assert statuses(received)[0] == 413


H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
WEBSOCKET = (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SIZED = b"Content-Length: %d" % len(IMAGE)
AS_CHUNKS = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (7, IMAGE[:7], len(IMAGE) - 7, IMAGE[7:])


@pytest.mark.parametrize("size", [None, 1, 50], ids=["at once", "byte by byte", "in pieces"])
@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(
    url: str, upgrade: tuple[bytes, ...], size: int | None
) -> None:
    """`curl --http2` does so with its first request; a server may ignore it (RFC 9110, section 7.8)."""
    labels = b"GET /labels HTTP/1.1\r\nHost: test\r\n" + b"\r\n".join(upgrade) + b"\r\n\r\n"
    sized = field(*upgrade, SIZED, body=IMAGE)
    chunked = field(CHUNKED, *upgrade, body=AS_CHUNKS)
    plain = field(SIZED, body=IMAGE)
    sent = labels + sized + chunked + plain + sized + labels + LAST
    received = exchange(url, *(sent[at : at + (size or len(sent))] for at in range(0, len(sent), size or len(sent))))
    assert statuses(received) == [200] * 7, received
    assert received.count(b'"classes"') == 2
    assert received.count(b'"predictions"') == 4


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_who_asks_for_another_protocol_and_closing_is_answered_and_closed(url: str, upgrade: tuple[bytes, ...]) -> None:
    for sent in (
        field(*upgrade, SIZED, b"Connection: close", body=IMAGE),
        field(*upgrade, SIZED, b"Expect: 100-continue"),
    ):
        with connected(url) as connection:
            connection.sendall(sent)
            if b"Expect" in sent:
                assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
                connection.sendall(IMAGE + LAST)
            received = read_to_end(connection)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b'"predictions"' in received


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_ambiguous_is_so_with_an_upgrade_as_well(url: str, sent: bytes) -> None:
    first, rest = sent.split(b"\r\n", 1)
    received = exchange(url, first + b"\r\n" + b"".join(line + b"\r\n" for line in H2C) + rest, LAST)
    assert statuses(received) in ([400], [408]), received
    assert b'"classes"' not in received


def test_a_body_behind_an_upgrade_is_not_the_next_request(url: str) -> None:
    received = exchange(url, field(*H2C, LENGTH, body=HIDDEN) + LAST)
    assert statuses(received) == [415, 200]


@pytest.mark.parametrize("target", [b"elsewhere.example:443", b"/predict", b"*"])
def test_no_tunnel_is_opened(url: str, target: bytes) -> None:
    received = exchange(url, b"CONNECT " + target + b" HTTP/1.1\r\nHost: test\r\n\r\n" + HIDDEN, LAST)
    assert statuses(received) == [400]
    assert b"connection: close" in received


def test_curl_is_served_when_it_offers_http_2(url: str, tmp_path: Path) -> None:
    if "HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("this curl was built without HTTP/2")
    image = tmp_path / "image.png"
    image.write_bytes(IMAGE)
    each = [
        "-sS",
        "--max-time",
        "20",
        "--http2",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{http_version} %{num_connects}\\n",
    ]
    ways = [
        [f"{url}/labels"],
        ["-F", f"file=@{image}", f"{url}/predict"],
        ["--data-binary", f"@{image}", "-H", "Content-Type: image/png", f"{url}/predict"],
        ["-X", "POST", "-T", "-", "-H", "Transfer-Encoding: chunked", f"{url}/predict"],
    ]
    arguments = [argument for way in ways for argument in ("--next", *each, *way)][1:]
    done = subprocess.run(["curl", *arguments], input=IMAGE, capture_output=True, timeout=100, check=True)
    assert done.stdout.decode().splitlines() == ["200 1.1 1", *["200 1.1 0"] * 3]
