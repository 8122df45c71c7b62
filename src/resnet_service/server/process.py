"""What a service of one process and each process of several do alike."""

import logging
import socket

from resnet_service.system.imports import block_import
from resnet_service.system.memory import limit_gc, limit_heap

log = logging.getLogger("resnet_service")


def prepare() -> None:
    """Set limits of memory, before anything large is imported."""
    limit_heap()
    limit_gc()
    # FastAPI checks each type for Pydantic 1, and would import all of that for it.
    block_import("pydantic.v1")


def log_address(listener: socket.socket) -> None:
    """Log that the service is ready, and where."""
    host, port = listener.getsockname()[:2]
    log.info("Ready on http://%s:%d/", f"[{host}]" if ":" in host else host, port)
