"""The health check of containers: is the service on this machine ready?

``python -m resnet_service.server.healthcheck`` exits with 0 if it is, else with 1 and a line that says why. A container
runs it every few seconds beside the service, so it imports neither an HTTP library nor the rest of the package and
speaks to a socket. Address and port are those of the service's own variables.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 2


def probe(host: str, port: int) -> None:
    """Ask ``host:port`` for its readiness.

    Raises:
        OSError: Nothing answers there within ``TIMEOUT_SECONDS``, or what does is not ready.

    """
    with socket.create_connection((host, port), TIMEOUT_SECONDS) as connection:
        connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = connection.makefile("rb").readline(100).decode("latin-1").strip()
    if status.split(" ")[1:2] != ["200"]:
        raise OSError(f"not ready: {status or 'an empty answer'}")


def main() -> None:
    """Probe the service that these variables configure."""
    host = os.environ.get("RESNET_SERVICE_HOST", "127.0.0.1")
    port = int(os.environ.get("RESNET_SERVICE_PORT", "8080"))
    try:
        # Whoever listens everywhere is asked on loopback.
        probe({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104 - compared, not bound
    except OSError as error:
        sys.exit(f"{host}, port {port}: {error}")


if __name__ == "__main__":
    main()
