"""When the work of the current context has to be done; what waits in a thread asks how long it may."""

import math
import time
from contextvars import ContextVar

_END: ContextVar[float] = ContextVar("deadline", default=math.inf)


def set_deadline(end: float) -> None:
    """Set the deadline of the current context, in seconds of ``time.monotonic``."""
    _END.set(end)


def remaining_seconds() -> float:
    """Return the seconds until the deadline, infinity without one; negative after it."""
    return _END.get() - time.monotonic()
