"""The tool slowhttptest against the real process."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.support.images import CAT
from tests.support.servers import server_process
from tests.support.waiting import until

LIMITS = ("--header-seconds", "3", "--body-seconds", "3", "--send-seconds", "3")
CONNECTIONS = 200
MODES = {
    "header": ("-H", "-i", "1", "-u", "{url}/health/live"),
    "body": ("-B", "-i", "1", "-s", "100000", "-f", "image/jpeg", "-u", "{url}/predict"),
    "read": ("-X", "-n", "5", "-z", "1", "-w", "64", "-y", "512", "-k", "10", "-u", "{url}/web/app.js"),
}


def sockets(process: int) -> int:
    """Return how many sockets a process has open."""
    count = 0
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            count += os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:
            continue  # closed since it was listed
    return count


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_200_stalled_connections_block_no_client_and_are_closed_in_time(checkpoint: Path, mode: str) -> None:
    tool = shutil.which("slowhttptest")
    assert tool, "install it: apt-get install slowhttptest"
    with server_process("--checkpoint", checkpoint, *LIMITS) as server, httpx.Client(base_url=server.url) as client:
        assert client.post("/predict", content=CAT.read_bytes()).status_code == 200
        before = sockets(server.process.pid)
        arguments = [argument.format(url=server.url) for argument in MODES[mode]]
        attack = subprocess.Popen(
            [tool, *arguments, "-c", str(CONNECTIONS), "-r", "50", "-l", "60"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            most = 0
            end = time.monotonic() + 12
            while time.monotonic() < end:
                most = max(most, sockets(server.process.pid) - before)
                answer = client.post("/predict", content=CAT.read_bytes(), timeout=5)
                assert answer.status_code == 200, answer.text
                time.sleep(0.05)
            assert most > CONNECTIONS / 2, "the attack did not take place"
            # At 50 a second, they took 4 s to come; the tool would stay for 60 s.
            until(lambda: sockets(server.process.pid) <= before + 2, seconds=6)
        finally:
            attack.kill()
            attack.wait(10)
        server.stop()
        assert "Traceback" not in server.log
