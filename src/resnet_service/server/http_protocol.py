"""Uvicorn's HTTP/1.1 protocol, with the bounds it lacks: on connections, request heads, and the reading of answers."""

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios
from collections.abc import Iterable
from contextvars import Context
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from resnet_service.api.dependencies import Service
from resnet_service.api.problem_details import respond_to
from resnet_service.errors import HeadTooLarge, MalformedRequest, RequestTooSlow, ServiceError, TooManyConnections
from resnet_service.observability.request_context import RequestContext, new_request_id, request_id

log = logging.getLogger("resnet_service.access")

_MAX_HEADERS = 100
# Where Linux's struct tcp_info has tcpi_bytes_acked, since 4.1.
_BYTES_ACKED = slice(120, 128)
_SWEEP_SECONDS = 0.5
# A client that sends a request while the service begins to end has not been told, and could not know if it was lost.
_LAST_REQUEST_SECONDS = 0.5
# Refused connections are read from for so long, and so many beyond the limit: closing with unread bytes resets a
# connection, and a reset destroys the answer on its way to the client.
_LINGER_SECONDS = 2.0
_LINGERING = 64


class BoundedProtocol(HttpToolsProtocol):
    """One connection, with its request heads bounded in bytes, number of fields and time, and its answers in time.

    Times are looked after by ``sweep``, from outside and for all connections together, rather than by timers that
    every request would have to set and cancel.
    """

    service: Service

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self.service = self.app_state["service"]
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._settings = self.service.settings
        self._answering: RequestResponseCycle | None = None  # uvicorn's ``cycle`` is the newest, with pipelining
        self._refused = False
        self._refused_at = 0.0
        self._messages = 0
        self._in_head = False
        self._head_bytes = 0  # of a head that came in several pieces, without the first
        self._measured = 0
        self._fields = 0
        self._head_since: float | None = self.loop.time()  # since when the next head is awaited
        self._unsent_since: float | None = None  # since when the client has bytes to acknowledge,
        self._to_acknowledge = 0  # and which count of its acknowledged bytes would say that it has
        if len(self.connections) > self._settings.max_connections:
            self._refuse(TooManyConnections("Too many connections are open. Try again in a moment."))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection, and tell the application if it still answers."""
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self._refused:
            return
        if self._head_since is None and self._idle():
            # A head, empty lines before one, or the rest of a body that nobody reads any more.
            self._head_since = self.loop.time()
        message = self._messages
        self._unset_keepalive_if_required()
        self._parse(data)
        # A whole head is measured field by field; a field that has not ended yet is measured here.
        if self._in_head and message == self._messages:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """Begin to measure a head."""
        super().on_message_begin()
        self._messages += 1
        self._in_head = True
        self._head_bytes = self._measured = self._fields = 0
        if self._head_since is None:  # it comes while the request before it is still answered
            self._head_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request line."""
        self._measured += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field, or none after the last that is allowed."""
        self._measured += len(name) + len(value)
        self._fields += 1
        if not self._beyond():
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start on the request, or refuse it."""
        if self._refused:
            return
        if self._beyond():
            self._refuse(self._too_large())
            return
        if self.parser.should_upgrade():  # begins when it is parsed again, without that field
            return
        super().on_headers_complete()
        self._in_head = False
        self._head_since = None
        if self.service.health.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if not self._refused and not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the shape that every error has."""
        if not self._refused:
            self._refuse(MalformedRequest("This is not a well-formed HTTP request."))

    def shutdown(self) -> None:
        """End the connection when its request is answered; where it has none, wait a moment for one on its way."""
        if self._idle() and not self._refused:
            self.loop.call_later(_LAST_REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def sweep(self, now: float) -> None:
        """Close the connection where its client has taken too long; ``now`` is the loop's time."""
        if self._refused and now - self._refused_at > _LINGER_SECONDS:
            self._abort()
            return
        awaited = self._head_since if self._idle() else None
        if awaited is not None and now - awaited > self._settings.header_seconds:
            if self._in_head:
                self._refuse(RequestTooSlow("The request's headers came too slowly."))
            else:
                # Here, an answer would be taken for that of a request that is just being sent.
                self._head_since = None
                self.transport.close()
        unsent, acknowledged = self._unsent(), self._acknowledged()
        if unsent == 0 or (self._unsent_since is not None and acknowledged >= self._to_acknowledge):
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
            self._to_acknowledge = acknowledged + unsent
        elif now - self._unsent_since > self._settings.send_seconds:
            self._abort()

    def _parse(self, data: bytes) -> None:
        """Parse what came, as if nobody ever asked for another protocol; a server may (RFC 9110, section 7.8).

        The parser takes the request's body for that other protocol's, and ends there. So a new one, with uvicorn's
        options, is given the head once more, without the field ``Upgrade``, and goes on with the body by the same
        rules as for every other.
        """
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as stop:
                    if self._refused:
                        return
                    if self.parser.get_method() == b"CONNECT":
                        self._refuse(MalformedRequest("This server opens no tunnels."))
                        return
                    head = self._head_without_upgrade()
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                    self.parser.feed_data(head)
                    data = data[stop.args[0] :]
                else:
                    return
        except httptools.HttpParserError:
            self.send_400_response("")

    def _head_without_upgrade(self) -> bytes:
        fields = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        version = self.parser.get_http_version().encode("ascii")
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, fields)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _abort(self) -> None:
        """Close now; unlike ``transport.close``, not when what is left has been sent."""
        self._disconnect()
        self.transport.abort()

    def _disconnect(self) -> None:
        """Tell the application that the client has left."""
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self._answering is None or self._answering.response_complete

    def _beyond(self) -> bool:
        return self._fields > _MAX_HEADERS or self._measured > self._settings.max_header_bytes

    def _too_large(self) -> HeadTooLarge:
        return HeadTooLarge(
            f"The request line and headers may have {self._settings.max_header_bytes} bytes and {_MAX_HEADERS} fields."
        )

    def _unsent(self) -> int:
        """Return how many bytes the client has not acknowledged yet, in our buffer and in the kernel's."""
        waiting: int = self.transport.get_write_buffer_size()
        if (descriptor := self._socket.fileno()) >= 0:
            waiting += struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        return waiting

    def _acknowledged(self) -> int:
        """Return how many bytes the client has acknowledged in all; 0 where the kernel does not tell."""
        if self._socket.fileno() < 0:
            return 0
        facts = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.stop)
        return int.from_bytes(facts[_BYTES_ACKED], sys.byteorder)

    def _refuse(self, error: ServiceError) -> None:
        """Answer a request that no application will see, and close."""
        self._refused = True
        self._refused_at = self.loop.time()
        self._head_since = None
        self._unset_keepalive_if_required()
        if not self._idle():
            if self._answering is not self.cycle or self._in_head or self.cycle.response_started:
                # The answer before this one is not complete; two at once would be neither.
                self.transport.close()
                return
            # It is this request's body that is refused. For the application, the client has left.
            ctx: RequestContext | None = self.cycle.scope["state"].setdefault(
                "request_context", RequestContext(request_id(self.headers))
            )
            self._disconnect()
        else:
            ctx = None
        # In a context of its own: the loop calls us in that of whichever request came last.
        response = Context().run(respond_to, error)
        if ctx is not None:  # and its observer counts it
            ctx.refused = response.status_code, error.code
            name = ctx.request_id
        else:
            name = new_request_id()
            self.service.metrics.refused(response.status_code, error.code)
            about = {"request_id": name, "status": response.status_code, "code": error.code}
            Context().run(log.info, "request", extra=about)
        fields = [
            *self.server_state.default_headers,
            *response.raw_headers,
            (b"x-request-id", name.encode("ascii")),
            (b"connection", b"close"),
        ]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body))
        if len(self.connections) > self._settings.max_connections + _LINGERING:
            self.transport.close()
        else:
            self.transport.write_eof()


async def sweep(connections: Iterable[Any]) -> None:
    """Look after the times of all ``connections``, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, BoundedProtocol):
                connection.sweep(now)
