"""Ten reloads under load: no request is refused, and the old models are freed. ``-s`` prints the figures."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.images import CAT
from tests.support.processes import holdings, idle_holdings
from tests.support.servers import REPOSITORY, server_process
from tests.support.waiting import until

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
RELOADS = 10
MEGABYTES = 15  # a model that stayed would be 45


@pytest.mark.slow
def test_ten_reloads_under_load_fail_no_request_and_keep_no_memory() -> None:
    """20 s."""
    done = threading.Event()

    def ask(url: str) -> list[int]:
        statuses = []
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                statuses.append(client.post("/predict", content=CAT.read_bytes()).status_code)
        return statuses

    with ThreadPoolExecutor(4) as clients, server_process("--checkpoint", MODEL) as server:
        pid = server.process.pid
        idle = idle_holdings(server.url, pid)
        asked = [clients.submit(ask, server.url) for _ in range(4)]
        try:
            seen = []
            for number in range(1, RELOADS + 1):
                server.process.send_signal(signal.SIGHUP)
                until(lambda number=number: server.log.count("Serving ") == 1 + number, seconds=60)  # type: ignore[misc]
                seen.append(holdings(pid))
        finally:
            done.set()
        statuses = [status for future in asked for status in future.result(30)]
        until(lambda: holdings(pid).descriptors <= idle.descriptors)
        after = holdings(pid)
        print(
            f"\n{RELOADS} reloads under {len(statuses)} requests: memory {idle.megabytes:.0f} MB at the start, "
            f"{max(one.megabytes for one in seen):.0f} MB at most, {after.megabytes:.0f} MB at the end; "
            f"threads {idle.threads}, {after.threads}"
        )
        assert set(statuses) == {200}
        assert after.megabytes - idle.megabytes < MEGABYTES
        # One more is asyncio's own thread, which loads models.
        assert after.threads <= idle.threads + 1


@pytest.mark.slow
def test_hundreds_of_signals_reload_a_few_times_and_fail_no_request(tmp_path: Path) -> None:
    """5 s."""
    with server_process("--checkpoint", MODEL) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(300):
            server.process.send_signal(signal.SIGHUP)
            assert client.post("/predict", content=CAT.read_bytes()).status_code == 200
        until(lambda: "Serving " in server.log.splitlines()[-1], seconds=60)
        assert client.get("/health/ready").status_code == 200
        server.stop()
        assert "Traceback" not in server.log
        assert "keeps serving" not in server.log
