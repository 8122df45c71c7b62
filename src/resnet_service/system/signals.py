"""Signals that come before a server handles them, when there is nothing to drain and nothing to reload."""

import logging
import os
import signal
from types import FrameType
from typing import Never


def handle_early_signals() -> None:
    """End at once on SIGTERM and SIGINT, and ignore SIGHUP, which would end the process.

    An exception would not do: it would come out of whatever is being imported or started, often with a traceback.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


def end_at_once(number: int) -> Never:
    """End a process with the exit code of one that has drained, without waiting for its threads."""
    logging.shutdown()  # writes the queued log lines
    os._exit(128 + number if number == signal.SIGINT else 0)


def _end(number: int, frame: FrameType | None) -> None:
    end_at_once(number)
