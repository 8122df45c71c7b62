"""The settings of a server, from environment variables that the harness sets."""

import os
from pathlib import Path

HOST = "127.0.0.1"


def model() -> Path:
    """Return the file to serve."""
    return Path(os.environ["MODEL"])


def port() -> int:
    """Return the port to listen on."""
    return int(os.environ["PORT"])


def number(name: str, default: int) -> int:
    """Return ``WORKERS``, ``THREADS`` or another setting that is a number."""
    return int(os.environ.get(name, default))
