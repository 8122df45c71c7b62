"""h11's parser with bounds: heads are measured before they are parsed, and each turn of the event loop is short."""

import re
from http import HTTPStatus
from typing import Any, NoReturn

import h11
from h11._receivebuffer import ReceiveBuffer

from resnet_service.errors import HeadTooLarge, MalformedRequest, ServiceError, TooManyConnections

_MAX_FIELDS = 100
_HEAD_END = b"\r\n\r\n"
# h11 accepts lines that end with LF alone, and fields that continue on the next line; a proxy may read them otherwise.
_AMBIGUOUS_LINES = re.compile(rb"(?<!\r)\n|\n[ \t]")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_LONGEST_BODY = 2**63 - 1
# Bytes of a chunked body that the parser gets at once. The rest waits here, since it may hold the next request.
_PIECE = 16_384
# Events of one turn: a chunk of one byte costs about ten microseconds, and a hundred clients may send such chunks.
_EVENTS = 10
# Bytes of empty lines before a request that may arrive at once.
_EMPTY_LINES = 16


class BoundedConnection(h11.Connection):
    """The server's side of one connection.

    h11 bounds the lines of chunks and the trailers by ``max_head``, and stops after each request until it has been
    answered. This class adds what h11 leaves open: a head is given to it only when it is complete and within its bounds
    of bytes and fields, and it is strict where readers of HTTP differ. What a piece of a chunked body holds of the next
    request, ``start_next_cycle`` takes back.

    Args:
        max_head: Bytes of a request line with its fields, of one chunk's line, and of all trailers.
        paths: Refuse all requests but those that read one of these paths; ``None`` allows all.

    """

    def __init__(self, max_head: int, paths: frozenset[str] | None = None) -> None:
        self._max_head = max_head
        self._begin()
        self.error: ServiceError = MalformedRequest()  # why ``next_event`` has raised
        self.body_was_malformed = False
        self._paths = paths
        self._unparsed = bytearray()
        self._body_left = 0  # bytes of a body with a length
        self._response_head: Any = None  # not yet written
        self._events_left = _EVENTS

    @property
    def in_head(self) -> bool:
        """Whether a part of a head has arrived."""
        return self.their_state is h11.IDLE and bool(self._unparsed)

    @property
    def in_body(self) -> bool:
        """Whether a request's body has not arrived in full."""
        return self.their_state is h11.SEND_BODY

    @property
    def turn_is_over(self) -> bool:
        """Whether this turn's events are used up."""
        return self._events_left == 0

    @property
    def has_deferred_bytes(self) -> bool:
        """Whether bytes wait until the request before them has been answered."""
        return bool(self._unparsed) and self.their_state not in (h11.IDLE, h11.SEND_BODY)

    def begin_turn(self) -> None:
        """Allow another ``_EVENTS`` events."""
        self._events_left = _EVENTS

    def receive_data(self, data: bytes) -> None:
        """Keep received bytes for ``next_event``, and begin a turn."""
        self._unparsed += data
        self.begin_turn()

    def next_event(self) -> Any:
        """Return the next event, or ``NEED_DATA``, also when the turn is over.

        Raises:
            h11.RemoteProtocolError: The request is refused; ``error`` says why.

        """
        while self._events_left:
            self._events_left -= 1
            if self.their_state is h11.IDLE:
                return self._head()
            try:
                event = super().next_event()
            except h11.RemoteProtocolError as error:
                self.body_was_malformed = True
                if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:  # a chunk's line, or trailers
                    self.error = HeadTooLarge(self._max_head, _MAX_FIELDS)
                raise
            if type(event) is h11.Data:
                self._body_left -= len(event.data)
            if event is not h11.NEED_DATA:
                return event
            if not self.in_body or not self._unparsed:
                self._events_left += 1
                return event
            size = self._body_left if self._body_left > 0 else _PIECE
            super().receive_data(bytes(self._unparsed[:size]))
            del self._unparsed[:size]
        return h11.NEED_DATA

    def send(self, event: Any) -> Any:
        """Return the bytes to write; those of a response's head come with the first of its body, in one write."""
        data = super().send(event)
        if type(event) is h11.Response:
            self._response_head, data = data, b""
        elif self._response_head is not None and data is not None:
            data, self._response_head = self._response_head + data, None
        return data

    def start_next_cycle(self) -> None:
        """Begin with the next request: like a new connection, which first gets the bytes that belong to it."""
        self._unparsed[:0] = self.trailing_data[0]
        self._begin()

    def _begin(self) -> None:
        self.reads_head_only = False  # whether the request is HEAD, to which an answer has no body
        super().__init__(h11.SERVER, self._max_head)
        self._receive_buffer = _StrictBuffer()

    def _head(self) -> Any:
        """Parse a head if it has arrived in full."""
        unparsed = self._unparsed
        # Some clients send an empty line behind a body (RFC 9112, section 2.2).
        begin = unparsed[:_EMPTY_LINES]
        del unparsed[: len(begin) - len(begin.lstrip(b"\r\n"))]
        if len(begin) == _EMPTY_LINES and unparsed.startswith((b"\r", b"\n")):
            self._refuse(MalformedRequest())
        end = unparsed.find(_HEAD_END)
        size = len(unparsed) if end < 0 else end + len(_HEAD_END)
        if size > self._max_head + len(_HEAD_END):
            self._refuse(HeadTooLarge(self._max_head, _MAX_FIELDS))
        if end < 0:
            if not unparsed.isascii() or b"\n\n" in unparsed:
                self._refuse(MalformedRequest())
            return h11.NEED_DATA
        head = bytes(unparsed[:size])
        del unparsed[:size]
        if head.count(b"\n") > _MAX_FIELDS + 2:  # request line and empty line
            self._refuse(HeadTooLarge(self._max_head, _MAX_FIELDS))
        super().receive_data(head)
        request: Any = super().next_event()
        self.reads_head_only = request.method == b"HEAD"
        self._check(request)
        if _ABSOLUTE.match(request.target):  # to a proxy; RFC 9112, section 3.2.2, wants servers to accept it
            target = _ABSOLUTE.sub(b"", request.target, count=1)
            request = h11.Request(
                method=request.method,
                headers=request.headers,
                target=target if target.startswith(b"/") else b"/" + target,
                http_version=request.http_version,
            )
        if self._paths is not None and not self._is_probe(request):
            self._refuse(TooManyConnections())
        return request

    def _is_probe(self, request: h11.Request) -> bool:
        """Return whether the request reads one of the paths, without a body that would have to be waited for."""
        path = request.target.partition(b"?")[0].decode("ascii")
        has_body = self._body_left or any(name == b"transfer-encoding" for name, _ in request.headers)
        return path in (self._paths or ()) and request.method in (b"GET", b"HEAD") and not has_body

    def _check(self, request: h11.Request) -> None:
        """Refuse what h11 accepts and this service, or another reader, may take for something else."""
        fields = dict(request.headers)
        length = int(fields.get(b"content-length", b"0"))
        coded = b"transfer-encoding" in fields
        if (
            request.http_version not in (b"1.0", b"1.1")
            or not _HOST.fullmatch(fields.get(b"host", b""))
            or (coded and (b"content-length" in fields or request.http_version == b"1.0"))
            or length > _LONGEST_BODY
        ):
            self._refuse(MalformedRequest())
        if request.method == b"CONNECT":
            self._refuse(MalformedRequest("This server does not support CONNECT."))
        self._body_left = length

    def _refuse(self, error: ServiceError) -> NoReturn:
        self.error = error
        raise h11.RemoteProtocolError(str(error))


class _StrictBuffer(ReceiveBuffer):
    """h11's buffer, which takes only unambiguous lines for those of a head or of trailers."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Extract the lines up to the first empty one, if that has arrived."""
        before = bytes(self)
        lines: list[bytearray] | None = super().maybe_extract_lines()
        if lines is not None and _AMBIGUOUS_LINES.search(before, 0, len(before) - len(self)):
            raise h11.RemoteProtocolError("a line that other readers may take for something else")
        return lines
