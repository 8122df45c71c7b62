"""Uvicorn's HTTP/1.1 protocol, with the bounds it lacks: on connections, request heads, and the reading of answers."""

import asyncio
import fcntl
import struct
import termios
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from resnet_service.api.problems import respond_to
from resnet_service.api.state import Service
from resnet_service.errors import HeadTooLarge, MalformedRequest, RequestTooSlow, ServiceError, TooManyConnections

_MAX_HEADERS = 100
_SWEEP_SECONDS = 0.5
# For a connection that was opened as the service was told to end: its request may be on the way.
_LAST_REQUEST_SECONDS = 1.0


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
        self._settings = self.service.settings
        self._refused = False
        self._head_bytes = 0
        self._fields = 0
        self._head_since: float | None = self.loop.time()  # since when the next head is awaited
        self._unsent_since: float | None = None
        self._unsent_cycle: object = None
        if len(self.connections) > self._settings.max_connections:
            self._refuse(TooManyConnections("Too many connections are open. Try again in a moment."))

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self._refused:
            return
        if self._head_since is None and self._idle():
            self._head_since = self.loop.time()
        before = self.cycle
        self._head_bytes += len(data)
        super().data_received(data)
        # A whole head was measured field by field; of one that is not whole yet, all that came is head.
        if self.cycle is not before or not self._idle():
            self._head_bytes = 0
        elif self._head_bytes > self._settings.max_header_bytes and not self._discarding():
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """Begin to measure a head."""
        super().on_message_begin()
        self._measured = 0
        self._fields = 0

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
        super().on_headers_complete()
        self._head_since = None
        if self.service.health.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the shape that every error has."""
        if not self._refused:
            self._refuse(MalformedRequest("This is not a well-formed HTTP request."))

    def shutdown(self) -> None:
        """End the connection when its request is answered; where none has come yet, wait a moment for it."""
        if self.cycle is None and not self._refused:
            self.loop.call_later(_LAST_REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def sweep(self, now: float) -> None:
        """Close the connection where its client has taken too long; ``now`` is the loop's time."""
        if self._head_since is not None and now - self._head_since > self._settings.header_seconds:
            self._head_since = None
            # Where not one byte of a request came, an answer would be taken for that of a request just being sent.
            if self._head_bytes and not self._discarding():
                self._refuse(RequestTooSlow("The request's headers came too slowly."))
            else:
                self.transport.close()
        if self._unsent() == 0 or self._unsent_cycle is not self.cycle:
            self._unsent_cycle = self.cycle
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > self._settings.send_seconds:
            # Not close, which would wait until the rest is sent.
            self.transport.abort()

    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _discarding(self) -> bool:
        """Whether what comes is the rest of a body whose request has been answered."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def _beyond(self) -> bool:
        return self._fields > _MAX_HEADERS or self._measured > self._settings.max_header_bytes

    def _too_large(self) -> HeadTooLarge:
        return HeadTooLarge(
            f"The request line and headers may have {self._settings.max_header_bytes} bytes and {_MAX_HEADERS} fields."
        )

    def _unsent(self) -> int:
        """Return how many bytes the client has not acknowledged yet, in our buffer and in the kernel's."""
        ours: int = self.transport.get_write_buffer_size()
        descriptor = self.transport.get_extra_info("socket").fileno()
        if descriptor < 0:
            return ours
        kernels: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        return ours + kernels

    def _refuse(self, error: ServiceError) -> None:
        """Answer without a request that an application could answer, and close."""
        self._refused = True
        self._head_since = None
        self._unset_keepalive_if_required()
        response = respond_to(error)
        fields = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body))
        self.transport.close()


async def sweep(connections: Iterable[Any]) -> None:
    """Look after the times of all ``connections``, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, BoundedProtocol):
                connection.sweep(now)
