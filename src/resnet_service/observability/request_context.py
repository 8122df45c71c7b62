"""The context of the current request: ID, stage times and error code."""

import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import getrandbits

REQUEST_ID_HEADER = b"x-request-id"
# Long enough for UUIDs, W3C trace contexts and the IDs of common proxies, and without characters that are special in
# logs, headers or shells.
_ACCEPTED = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")


@dataclass(slots=True)
class RequestContext:
    """One request in progress.

    ``begun`` is when its head had arrived, in seconds of ``time.perf_counter``. ``code`` is the error code of its
    response. ``stages`` has the seconds of each finished stage, in order. ``refused`` has status and code if the server
    refused the request below the application, which then only sees the client disconnect.
    """

    request_id: str
    begun: float = field(default_factory=time.perf_counter)
    code: str | None = None
    stages: dict[str, float] = field(default_factory=dict)
    refused: tuple[int, str] | None = None

    def add(self, stage: str, seconds: float) -> None:
        """Add time spent in a stage; a batch goes through some stages several times."""
        self.stages[stage] = self.stages.get(stage, 0) + seconds


current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def note_problem(code: str) -> None:
    """Record the error code of the current request; later ones do not replace the first."""
    ctx = current.get()
    if ctx is not None and ctx.code is None:
        ctx.code = code


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the client's ``X-Request-ID`` if it has 1 to 128 accepted characters, else a new one.

    Args:
        headers: As in ASGI, names in lower case.

    """
    values = [value for name, value in headers if name == REQUEST_ID_HEADER]
    if len(values) == 1 and _ACCEPTED.fullmatch(values[0]):
        return values[0].decode("ascii")
    return new_request_id()


def new_request_id() -> str:
    """Return 32 random hexadecimal digits; they are no secret."""
    # The system's random numbers cost a call that hands the interpreter to another thread.
    return f"{getrandbits(128):032x}"
