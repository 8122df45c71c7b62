"""What is seen of one request while it is answered: by whoever works on it, threads included."""

import os
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

# Long enough for UUIDs, W3C trace contexts and the identifiers of the usual proxies; no character that a log, a header
# or a shell reads as anything but itself.
_ACCEPTED = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")


@dataclass(slots=True)
class RequestContext:
    """One request, as far as it has come.

    ``begun`` is when its head had arrived, in seconds of ``time.perf_counter``. ``code`` is that of the first problem
    answered with. ``stages`` has the seconds spent in each stage that is over, in their order. ``refused`` is status
    and code where the connection was refused below the application, which then only sees a client leave.
    """

    request_id: str
    begun: float = field(default_factory=time.perf_counter)
    code: str | None = None
    stages: dict[str, float] = field(default_factory=dict)
    refused: tuple[int, str] | None = None

    def add(self, stage: str, seconds: float) -> None:
        """Count time spent in a stage; a batch goes through some of them several times."""
        self.stages[stage] = self.stages.get(stage, 0) + seconds


current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def note_problem(code: str) -> None:
    """Note with which problem the request of now is answered; later ones do not count."""
    ctx = current.get()
    if ctx is not None and ctx.code is None:
        ctx.code = code


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the client's own ``X-Request-ID`` if it is one that can be believed, else a new one.

    Args:
        headers: As ASGI has them, names in lower case.

    """
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and _ACCEPTED.fullmatch(given[0]):
        return given[0].decode("ascii")
    return new_request_id()


def new_request_id() -> str:
    """Return 32 random hexadecimal digits."""
    return os.urandom(16).hex()
