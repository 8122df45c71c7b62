"""Request heads that a server must refuse, and trailer fields, which it must not take for header fields."""

import re
import time
from collections.abc import Iterator

import pytest

from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.settings import Settings
from tests.support.servers import served
from tests.support.wire import connected, head, read_answer

REFUSED = {
    "no host": b"GET /labels HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /labels HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /labels HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a bare CR behind the method": b"GET\r /labels HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare CR at the end of a line": b"GET /labels HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "a host with a space": b"GET /labels HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with a path": b"GET /labels HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a line that ends with LF": b"GET /labels HTTP/1.1\nHost: a\r\n\r\n",
    "only lines that end with LF": b"GET /labels HTTP/1.1\nHost: a\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "chunks in HTTP/1.0": b"POST /predict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "many empty lines": b"\r\n" * 9 + b"GET /labels HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET /labels HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /labels HTTP/0.9\r\nHost: a\r\n\r\n",
    "gzip": b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
}
ACCEPTED = {
    "HTTP/1.0 without host": b"GET /labels HTTP/1.0\r\n\r\n",
    "a port": b"GET /labels HTTP/1.1\r\nHost: a.example:8000\r\n\r\n",
    "IPv6": b"GET /labels HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
    "empty lines before it": b"\r\n\r\nGET /labels HTTP/1.1\r\nHost: a\r\n\r\n",
    "an empty host": b"GET /labels HTTP/1.1\r\nHost:\r\n\r\n",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(create_app(Settings(), FakeClassifier())) as client:
        yield str(client.base_url)


def status(url: str, request: bytes) -> int:
    with connected(url) as connection:
        connection.sendall(request)
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", read_answer(connection))
        assert found
        return int(found[1])


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
def test_refused(url: str, request_bytes: bytes) -> None:
    assert status(url, request_bytes) == 400


@pytest.mark.parametrize("request_bytes", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(url: str, request_bytes: bytes) -> None:
    assert status(url, request_bytes) == 200


def test_trailer_fields_are_dropped(url: str) -> None:
    """Even before the application looks at the request: the trailer arrives with the head."""
    request = head(Transfer_Encoding="chunked") + b"1\r\nx\r\n0\r\nX-Request-ID: from-the-trailer\r\n\r\n"
    with connected(url) as connection:
        connection.sendall(request)
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"from-the-trailer" not in answer


def test_trailer_fields_are_bounded(url: str) -> None:
    trailer = b"".join(b"X-%d: x\r\n" % number for number in range(2000))
    with connected(url) as connection:
        connection.sendall(head(Transfer_Encoding="chunked") + b"1\r\nx\r\n0\r\n" + trailer)
        assert read_answer(connection).startswith(b"HTTP/1.1 431 ")


def test_what_follows_a_malformed_body_is_read_and_dropped(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(head(Transfer_Encoding="chunked") + b"1\r\nx\r\n" * 100 + b"malformed\r\n")
        connection.sendall(b"x" * 10_000_000)
        assert read_answer(connection).startswith(b"HTTP/1.1 400 ")


def test_what_follows_a_malformed_chunk_at_once_does_not_reset_the_connection(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(head(Transfer_Encoding="chunked") + b"malformed\r\n" + b"x" * 10_000_000)
        time.sleep(3)  # longer than the server waits for the client to close
        assert read_answer(connection).startswith(b"HTTP/1.1 400 ")
