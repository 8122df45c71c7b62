"""The health check of containers: exits with 0 if the service on this machine is ready.

Otherwise ``python -m resnet_service.server.healthcheck`` exits with 1 and a line with the reason. A container runs it
every few seconds beside the service, so it uses a plain socket and imports neither an HTTP library nor the rest of the
package. It reads address and port from the service's variables.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 2


def probe(host: str, port: int) -> None:
    """Ask ``host:port`` whether it is ready.

    Raises:
        OSError: No answer within ``TIMEOUT_SECONDS``, or not ready.

    """
    with socket.create_connection((host, port), TIMEOUT_SECONDS) as connection:
        connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = connection.makefile("rb").readline(100).decode("latin-1").strip()
    if status.split(" ")[1:2] != ["200"]:
        raise OSError(f"not ready: {status or 'an empty answer'}")


def main() -> None:
    """Probe the service that the environment variables configure."""
    host = os.environ.get("RESNET_SERVICE_HOST", "127.0.0.1")
    port = os.environ.get("RESNET_SERVICE_PORT", "8080")
    if not port.isdecimal():
        sys.exit(f"RESNET_SERVICE_PORT is {port!r}; it must be a number.")
    try:
        # A service that listens on all addresses is probed on loopback.
        probe({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port))  # noqa: S104 - compared, not bound
    except OSError as error:
        sys.exit(f"{host}, port {port}: {error}")


if __name__ == "__main__":
    main()
