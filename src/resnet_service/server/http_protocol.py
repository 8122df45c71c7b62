"""Uvicorn's HTTP/1.1 protocol with limits on connections, request heads and slow readers."""

import asyncio
import fcntl
import logging
import re
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
from resnet_service.observability.request_context import (
    REQUEST_ID_HEADER,
    RequestContext,
    new_request_id,
    request_id,
)

log = logging.getLogger("resnet_service.access")

_MAX_HEADERS = 100
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)
# Offset of tcpi_bytes_acked in Linux's struct tcp_info, since Linux 4.1.
_BYTES_ACKED = slice(120, 128)
_SWEEP_SECONDS = 0.5
# At shutdown, an idle connection stays open for this time: a client may just have sent a request, and could not know
# whether it was processed.
_LAST_REQUEST_SECONDS = 0.5
# Refused connections stay open for reading for this time, up to this many beyond the limit: closing a socket with
# unread bytes resets the connection, and a reset can destroy the response on its way to the client.
_LINGER_SECONDS = 2.0
_MAX_LINGERING = 64


class BoundedProtocol(HttpToolsProtocol):
    """One connection with limits: bytes, fields and time of a request's head, and time in which responses are read.

    ``sweep`` checks the times of all connections periodically, which is cheaper than timers for each request.
    """

    service: Service

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        self.service = self.app_state["service"]
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._settings = self.service.settings
        self._answering: RequestResponseCycle | None = None  # with pipelining, uvicorn's ``cycle`` is a later request
        self._refused = False
        self._refused_at = 0.0
        self._messages = 0
        self._in_head = False
        self._head_bytes = 0  # received of an incomplete head, without its first piece
        self._parsed_head_bytes = 0
        self._fields = 0
        self._head_since: float | None = self.loop.time()  # when waiting for the next head began
        self._unsent_since: float | None = None  # when the oldest unacknowledged bytes were noticed
        self._to_acknowledge = 0  # they have arrived when the client has acknowledged this many bytes
        if len(self.connections) > self._settings.max_connections:
            self._refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection; tell an application that still responds that the client has left."""
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes within the limits."""
        if self._refused:
            return
        if self._head_since is None and self._idle():
            # A head, empty lines before it, or the rest of a body that the application did not read.
            self._head_since = self.loop.time()
        message = self._messages
        self._unset_keepalive_if_required()
        self._parse(data)
        # Complete fields are counted as they are parsed; this counts the bytes of an incomplete one.
        if self._in_head and message == self._messages:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """Start to count the bytes and fields of a head."""
        super().on_message_begin()
        self._messages += 1
        self._in_head = True
        self._head_bytes = self._parsed_head_bytes = self._fields = 0
        if self._head_since is None:  # a pipelined request: the one before it is still being answered
            self._head_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Count a piece of the request line."""
        self._parsed_head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count one field; drop it if it exceeds the limits."""
        self._parsed_head_bytes += len(name) + len(value)
        self._fields += 1
        if not self._in_head:  # a trailer field: what was decided from the head must not change
            if self._exceeds_limits() and not self._refused:
                self._refuse(self._too_large())
        elif not self._exceeds_limits():
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, or refuse it."""
        if self._refused:
            return
        if self._exceeds_limits():
            self._refuse(self._too_large())
            return
        if not self._well_formed():
            self._refuse(MalformedRequest())
            return
        if self.parser.should_upgrade():  # it starts when ``_parse`` has parsed its head without that field
            return
        super().on_headers_complete()
        self._in_head = False
        self._head_since = None
        if self.service.health.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Receive a piece of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if not self._refused and not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse malformed HTTP with a problem document."""
        if not self._refused:
            self._refuse(MalformedRequest())

    def shutdown(self) -> None:
        """Close after the current response; an idle connection waits a moment for a request on its way."""
        if self._idle() and not self._refused:
            self.loop.call_later(_LAST_REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def sweep(self, now: float) -> None:
        """Close the connection if its client is too slow; ``now`` is the loop's time."""
        if self._refused and now - self._refused_at > _LINGER_SECONDS:
            self._abort()
            return
        waiting_since = self._head_since if self._idle() else None
        if waiting_since is not None and now - waiting_since > self._settings.header_seconds:
            if self._in_head:
                self._refuse(RequestTooSlow("The request's headers came too slowly."))
            else:
                # No error: a client that is sending a request just now would take the error for its response.
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
        """Parse received bytes and ignore ``Upgrade``, as RFC 9110, section 7.8, allows a server.

        The parser stops after a head with ``Upgrade``, since the body would belong to the other protocol. So a new
        parser, with uvicorn's options, gets the head again without that field, and then the body.
        """
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as stop:
                    if self._refused:
                        return
                    if self.parser.get_method() == b"CONNECT":
                        self._refuse(MalformedRequest("This server does not support CONNECT."))
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
        """Close now; ``transport.close`` would send the remaining bytes first."""
        self._disconnect()
        self.transport.abort()

    def _disconnect(self) -> None:
        """Tell the application that the client has disconnected."""
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _idle(self) -> bool:
        """Return whether no request is being answered."""
        return self._answering is None or self._answering.response_complete

    def _exceeds_limits(self) -> bool:
        return self._fields > _MAX_HEADERS or self._parsed_head_bytes > self._settings.max_header_bytes

    def _well_formed(self) -> bool:
        """Return whether the version, ``Host`` and ``Transfer-Encoding`` are ones that this server accepts."""
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        return (
            version in ("1.0", "1.1")
            and (len(hosts) == 1 or (not hosts and version == "1.0"))
            and all(_HOST.fullmatch(host.strip()) for host in hosts)
            and codings in ([], [b"chunked"])
        )

    def _too_large(self) -> HeadTooLarge:
        return HeadTooLarge(self._settings.max_header_bytes, _MAX_HEADERS)

    def _unsent(self) -> int:
        """Return the bytes that the client has not acknowledged, in the transport's buffer and the kernel's."""
        unsent: int = self.transport.get_write_buffer_size()
        if (descriptor := self._socket.fileno()) >= 0:
            unsent += struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        return unsent

    def _acknowledged(self) -> int:
        """Return the bytes that the client has acknowledged in all, 0 if the kernel does not provide it."""
        if self._socket.fileno() < 0:
            return 0
        tcp_info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.stop)
        return int.from_bytes(tcp_info[_BYTES_ACKED], sys.byteorder)

    def _refuse(self, error: ServiceError) -> None:
        """Respond with an error below the application, and close."""
        self._refused = True
        self._refused_at = self.loop.time()
        self._head_since = None
        self._unset_keepalive_if_required()
        if not self._idle():
            if self._answering is not self.cycle or self._in_head or self.cycle.response_started:
                # An earlier response is incomplete; a second one within it would garble both.
                self.transport.close()
                return
            # This request's body is refused. For the application, the client has disconnected.
            ctx: RequestContext | None = self.cycle.scope["state"].setdefault(
                "request_context", RequestContext(request_id(self.headers))
            )
            self._disconnect()
        else:
            ctx = None
        # In a new context: the event loop runs this in the context of the latest request.
        response = Context().run(respond_to, error)
        if ctx is not None:  # the middleware counts and logs it
            ctx.refused = response.status_code, error.code
            name = ctx.request_id
        else:
            name = new_request_id()
            self.service.metrics.refused(response.status_code, error.code)
            fields: dict[str, object] = {"request_id": name, "status": response.status_code, "code": error.code}
            if self.client is not None:
                fields["client"] = self.client[0]
            Context().run(log.info, "request", extra=fields)
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            (REQUEST_ID_HEADER, name.encode("ascii")),
            (b"connection", b"close"),
        ]
        head = b"".join(field + b": " + value + b"\r\n" for field, value in headers)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body))
        if len(self.connections) > self._settings.max_connections + _MAX_LINGERING:
            self.transport.close()
        else:
            self.transport.write_eof()


async def sweep(connections: Iterable[Any]) -> None:
    """Check the times of all ``connections`` every half second, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, BoundedProtocol):
                connection.sweep(now)
