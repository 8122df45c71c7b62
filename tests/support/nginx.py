"""Debian's nginx in front of a service, with a configuration of the documentation."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.browser import STRICT
from tests.support.servers import REPOSITORY, START_SECONDS, STOP_SECONDS

_PAGE = REPOSITORY / "docs" / "proxies.md"
# The user is for a root's nginx alone, whose workers would be others, and could not write into the folder.
_CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    {written}
}}
"""


def recipes() -> list[str]:
    """Return the nginx configurations of the documentation, in their order."""
    return re.findall(r"^```nginx\n(.*?)^```", _PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@contextmanager
def nginx(folder: Path, recipe: str, service: str) -> Iterator[str]:
    """Start nginx with a recipe of the documentation in front of ``service``, a URL; yield nginx's URL.

    Skip where there is none, but fail where the environment says that all tests must run.
    """
    # Debian has it where only root looks.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        reason = "there is no nginx (apt-get install nginx-light), so the service cannot be tried behind it"
        if STRICT:
            pytest.fail(f"{reason}, and RESNET_SERVICE_TESTS_STRICT is set")
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "listen 80;" in recipe
    assert "127.0.0.1:8080" in recipe
    written = recipe.replace("listen 80;", f"listen 127.0.0.1:{port};")
    written = written.replace("127.0.0.1:8080", service.removeprefix("http://").rstrip("/"))
    file = folder / "nginx.conf"
    file.write_text(_CONFIGURATION.format(folder=folder, written=written))
    log = folder / "error.log"
    process = subprocess.Popen([program, "-p", folder, "-e", log, "-c", file], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "nginx did not start in time"
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=STOP_SECONDS)
