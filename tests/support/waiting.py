"""Waiting for something to happen, with a limit."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return once ``condition()`` is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.005)
