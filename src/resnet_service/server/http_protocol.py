"""Uvicorn's HTTP/1.1 protocol on h11, with limits on connections, request heads and slow readers."""

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

from uvicorn.protocols.http.flow_control import CLOSE_HEADER, HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from resnet_service.api.app import PROBE_PATHS
from resnet_service.api.dependencies import Service
from resnet_service.api.problem_details import respond_to
from resnet_service.errors import RequestTooSlow, ServiceError, TooManyConnections
from resnet_service.observability.request_context import (
    REQUEST_ID_HEADER,
    RequestContext,
    new_request_id,
    request_id,
)
from resnet_service.server.http_parser import BoundedConnection

log = logging.getLogger("resnet_service.access")
# Uvicorn warns of each malformed request, of which ``_refuse`` writes a line.
_uvicorn_log = logging.getLogger("uvicorn.error.http")
_uvicorn_log.setLevel(logging.ERROR)

# In Linux's struct tcp_info: the place of tcpi_bytes_acked, since Linux 4.1, and the first byte of an ended connection.
_BYTES_ACKED = slice(120, 128)
_TCP_CLOSE = 7
_SWEEP_SECONDS = 0.5
# After a read of so many bytes, other connections are served first: uvloop would read megabytes in one turn.
_LARGE_READ = 65_536
# At shutdown, an idle connection stays open for this time: a client may just have sent a request, and could not know
# whether it was processed.
_LAST_REQUEST_SECONDS = 0.5
# Refused connections stay open for reading for this time: closing a socket with unread bytes resets the connection, and
# a reset can destroy the response on its way to the client.
_LINGER_SECONDS = 2.0
# Connections beyond the limit: refused ones that linger, and those on which only probes are answered.
_RESERVED = 64
# A new connection has this time to send a request before another one may take its place.
_SILENT_SECONDS = 0.25
# A client that has closed its connection answers within this time, over all but the slowest links.
_RESET_SECONDS = 0.05


class BoundedProtocol(H11Protocol):
    """One connection with limits: bytes, fields and time of a request's head, and time in which responses are read.

    Beyond the limit of connections, the one that has been idle for longest is closed for a new one. If none is idle,
    only probes are answered. ``sweep`` checks the times of all connections periodically, which is cheaper than timers
    for each request.
    """

    service: Service
    conn: BoundedConnection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start a connection; make room for it if there are too many."""
        super().connection_made(transport)
        self.service = self.app_state["service"]
        self.logger = _uvicorn_log
        self.flow: _Flow = _Flow(transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._settings = self.service.settings
        self._refused = False
        self._half_closed = False
        self._idle_since = self.loop.time()
        self._head_since: float | None = self._idle_since  # when waiting for the next head began
        self._unsent_since: float | None = None  # when the oldest unacknowledged bytes were noticed
        self._to_acknowledge = 0  # they have arrived when the client has acknowledged this many bytes
        limit = self._settings.max_connections
        self._beyond_limit = len(self.connections) > limit and not self._evict_idle(_SILENT_SECONDS)
        self.conn = BoundedConnection(self._settings.max_header_bytes, PROBE_PATHS if self._beyond_limit else None)
        if len(self.connections) > limit + _RESERVED and not self._evict_idle(0):
            self._refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection; tell an application that still responds that the client has left."""
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes within the limits."""
        if len(data) >= _LARGE_READ:
            self.flow.yields = True
            self.flow.pause_reading()
            self.loop.call_soon(self._end_yield)
        if self._refused:
            return
        if self._head_since is None and self._idle():
            # A head, empty lines before it, or the rest of a body that the application did not read.
            self._head_since = self.loop.time()
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn closes in any case
        """Answer the complete requests of a client that sends no more, and then close."""
        if self._refused or self._idle() or self.conn.in_body:
            return False
        self._half_closed = True
        if self.cycle.scope["http_version"] == "1.1" and not self.cycle.response_started:
            # Whether the client only sends no more or has closed its connection, a write shows: the latter resets it.
            # Each client must accept such a line before its response (RFC 9110, section 15.2).
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.loop.call_later(_RESET_SECONDS, self._abort_if_reset)
        return True

    def handle_events(self) -> None:
        """Handle what can be parsed in this turn of the event loop."""
        if self._refused or self.transport.is_closing() or self.conn.turn_is_over:
            return
        latest = self.cycle
        super().handle_events()
        if self._refused:
            return
        if self.cycle is not latest:
            self._head_since = None
            if self.service.health.draining or self._beyond_limit:
                self._close_after_response()
        if self.conn.turn_is_over:
            self.loop.call_soon(self._next_turn)
        # Bytes of later requests are not read before their time.
        self.flow.hold(self.conn.turn_is_over or self.conn.has_deferred_bytes)
        self._read_on()

    def on_response_complete(self) -> None:
        """Go on with the next request, if it has arrived."""
        now = self.loop.time()
        self._idle_since = now
        super().on_response_complete()
        if self._idle():
            if self.conn.in_head:
                self._head_since = now
            self._end_if_half_closed()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request with the problem document of ``conn.error``."""
        if not self._refused:
            self._refuse(self.conn.error)

    def shutdown(self) -> None:
        """Close after the current response; an idle connection waits a moment for a request on its way."""
        if self._idle() and not self._refused:
            self.loop.call_later(_LAST_REQUEST_SECONDS, super().shutdown)
        elif self._idle():
            super().shutdown()
        else:
            self._close_after_response()

    def sweep(self, now: float) -> None:
        """Close the connection if its client is too slow; ``now`` is the loop's time."""
        if self._refused and now - self._idle_since > _LINGER_SECONDS:
            self._abort()
            return
        if self._half_closed:
            self._abort_if_reset()
        waiting_since = self._head_since if self._idle() else None
        if waiting_since is not None and now - waiting_since > self._settings.header_seconds:
            if self.conn.in_head:
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

    def _next_turn(self) -> None:
        self.conn.begin_turn()
        self.handle_events()
        self._end_if_half_closed()

    def _end_if_half_closed(self) -> None:
        """Close if the client sends no more and all that it has sent is answered."""
        if self._half_closed and self._idle() and not self.conn.turn_is_over:
            self.transport.close()

    def _end_yield(self) -> None:
        self.flow.yields = False
        if not self.transport.is_closing():
            self._read_on()

    def _read_on(self) -> None:
        if self._refused or self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _close_after_response(self) -> None:
        """Tell the client with the response, unless it has begun, that the connection closes after it."""
        self.cycle.keep_alive = False
        self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]

    def _evict_idle(self, seconds: float) -> bool:
        """Close the connection that has been idle for longest, and at least so many seconds; return whether one was."""
        idle_before = self.loop.time() - seconds
        idle = [
            other
            for other in self.connections
            if isinstance(other, BoundedProtocol)
            and other is not self
            and other._idle_since <= idle_before
            and (other._refused or other._idle())
        ]
        if not idle:
            return False
        oldest = min(idle, key=lambda other: other._idle_since)
        oldest._abort()  # closing would wait for a client that reads nothing, and no sweep would end that
        self.connections.discard(oldest)  # now, since more may come before it is lost
        return True

    def _abort(self) -> None:
        """Close now; ``transport.close`` would send the remaining bytes first."""
        self._disconnect()
        self.transport.abort()

    def _abort_if_reset(self) -> None:
        """Close the connection if the client has closed it as a whole."""
        if self._socket.fileno() >= 0 and self._tcp_info()[0] == _TCP_CLOSE:
            self._abort()

    def _disconnect(self) -> None:
        """Tell the application that the client has disconnected."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _idle(self) -> bool:
        """Return whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

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
        return int.from_bytes(self._tcp_info()[_BYTES_ACKED], sys.byteorder)

    def _tcp_info(self) -> bytes:
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.stop)

    def _refuse(self, error: ServiceError) -> None:
        """Respond with an error below the application, and close."""
        self._refused = True
        self.flow.hold(False)
        self.flow.resume_reading()  # what comes is dropped
        self._head_since = None
        self._unset_keepalive_if_required()
        ctx: RequestContext | None = None
        if not self._idle():
            if self.cycle.response_started:  # a second response within it would garble both
                self.transport.close()
                return
            # This request's body is refused. For the application, the client has disconnected.
            ctx = self.cycle.scope["state"].setdefault("request_context", RequestContext(request_id(self.headers)))
            self._disconnect()
        elif self.conn.body_was_malformed:  # of a request that has been answered
            self.transport.close()
            return
        self._idle_since = self.loop.time()
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
        status = b"HTTP/1.1 %d %b\r\n" % (response.status_code, STATUS_PHRASES[response.status_code])
        head = b"".join(field + b": " + value + b"\r\n" for field, value in headers)
        body = b"" if self.conn.reads_head_only else bytes(response.body)
        self.transport.write(status + head + b"\r\n" + body)
        if len(self.connections) > self._settings.max_connections + _RESERVED:
            self.transport.close()
        else:
            self.transport.write_eof()


class _Flow(FlowControl):
    """Uvicorn's flow control, which resumes reading whenever an application receives, with holds against that."""

    held = False  # until what has been received is parsed
    yields = False  # until other connections have had their turn

    def hold(self, held: bool) -> None:
        """Stop reading until the hold ends, or end it; reading does not resume by itself."""
        self.held = held
        if held:
            # In any case: uvicorn resumes the transport itself behind a body that the application did not read.
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless there is a hold."""
        if not self.held and not self.yields:
            super().resume_reading()


async def sweep(connections: Iterable[Any]) -> None:
    """Check the times of all ``connections`` every half second, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, BoundedProtocol):
                connection.sweep(now)
