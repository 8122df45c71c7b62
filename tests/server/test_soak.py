"""Thousands of valid and invalid requests, and the resources that remain in use. ``-s`` prints the figures."""

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest

from tests.support.images import EXAMPLES, encoded, noise
from tests.support.load import Clients, Connection, run
from tests.support.processes import children, holdings, idle_holdings
from tests.support.servers import REPOSITORY, server_process
from tests.support.waiting import until
from tests.support.wire import head

MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
REQUESTS, WARM_UP = 10_000, 2_000
AT_ONCE = 32
MEGABYTES = 20
KILL_SECONDS = 7
LOST = 0  # instead of the status of a request that got no answer
FORM = "multipart/form-data; boundary=soak"

Exchange = Callable[[str, Clients], Awaitable[int | None]]


def request(body: bytes = b"", path: str = "/predict", method: str = "POST", **fields: str | int) -> bytes:
    return head(method, path, Content_Length=len(body), **fields) + body


def form(body: bytes) -> bytes:
    part = b'--soak\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    return request(part + body + b"\r\n--soak--\r\n", Content_Type=FORM)


def in_chunks(body: bytes, size: int = 1000) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head(Transfer_Encoding="chunked") + chunks + b"0\r\n\r\n"


def asks(sent: bytes, status: int, **how: float) -> tuple[Exchange, int | None]:
    """Send over a connection that is reused."""

    async def exchange(url: str, clients: Clients) -> int | None:
        return (await clients.ask(sent, **how)).status

    return exchange, status


def prefer_latency(sent: bytes, status: int) -> tuple[Exchange, int | None]:
    """Send over a new connection."""

    async def exchange(url: str, clients: Clients) -> int | None:
        connection = await Connection.open(url)
        try:
            return (await connection.ask(sent)).status
        finally:
            connection.close()

    return exchange, status


def leaves(sent: bytes, after: float) -> tuple[Exchange, int | None]:
    """Send a request or a part of one, and disconnect before the answer."""

    async def exchange(url: str, clients: Clients) -> int | None:
        connection = await Connection.open(url)
        connection.send(sent)
        await asyncio.sleep(after)
        connection.close()
        return None

    return exchange, None


def mixture() -> list[tuple[Exchange, int | None]]:
    """Return exchanges with their expected status; an exchange's number of entries is its weight."""
    mixed: list[tuple[Exchange, int | None]] = []
    for seed, (file_format, options) in enumerate(
        [("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("AVIF", {"speed": 10})]
    ):
        for side in (33, 120, 300):
            image = encoded(noise(side, side * 3 // 4, seed), file_format, **options)
            mixed += [asks(request(image), 200), asks(form(image), 200), prefer_latency(request(image), 200)]
    photograph = (EXAMPLES / "cat.jpg").read_bytes()
    modes = [encoded(noise(80, 60).convert(mode), "PNG") for mode in ("L", "1", "P", "RGBA")]
    modes.append(encoded(noise(80, 60).convert("CMYK"), "JPEG"))
    mixed += [asks(request(image), 200) for image in modes]
    mixed += [asks(request(photograph, "/predict?top_k=10"), 200), asks(in_chunks(photograph), 200)] * 3
    mixed += [asks(request(photograph, Connection="close"), 200)] * 3
    mixed += [asks(request(path=path, method="GET"), 200) for path in ("/metadata", "/labels", "/health/ready", "/")]
    mixed += [
        asks(request(photograph[:9000]), 422),
        asks(request(encoded(noise(200, 200), "PNG")[:20_000]), 422),
        asks(request(encoded(noise(200, 200), "WEBP")[:3000]), 422),
        asks(request(b"no image at all"), 415),
        asks(request(b"{}", Content_Type="application/json"), 415),
        asks(request(), 400),
        asks(request(photograph, "/predict?top_k=0"), 422),
        asks(request(photograph, "/predict?top_k=11"), 422),
        asks(request(photograph, Content_Type=FORM), 400),
        asks(request(path="/nowhere", method="GET"), 404),
        asks(request(method="GET"), 405),
        prefer_latency(head(Content_Length=50_000_000), 413),
        prefer_latency(b"hello\r\n\r\n", 400),
        prefer_latency(head(X="x" * 20_000), 431),
    ]
    # Longer than a request may keep its slot while its body arrives.
    mixed += [asks(request(photograph), 200, pieces=3, pause=0.2)] * 2
    mixed += [
        leaves(request(photograph)[:10_000], 0),
        leaves(request(photograph)[:10_000], 0.3),
        leaves(request(photograph), 0),
        leaves(request(photograph), 0.003),
        leaves(form(photograph)[:5000], 0.01),
        leaves(head()[:30], 0),
        leaves(b"", 0.1),
    ]
    return mixed


def counted(url: str) -> Counter[int]:
    """Return the service's own count of each status, but for the reading of its metrics."""
    counts: Counter[int] = Counter()
    for line in httpx.get(f"{url}/metrics").raise_for_status().text.splitlines():
        if line.startswith("resnet_service_requests_total{") and 'route="/metrics"' not in line:
            counts[int(line.split('status="')[1][:3])] += int(float(line.rpartition(" ")[2]))
    return counts


def mixed(seed: int) -> Iterator[tuple[Exchange, int | None]]:
    turns = mixture()
    generator = random.Random(seed)  # noqa: S311 - a mixture, not a secret
    while True:
        yield generator.choice(turns)


async def exchange_many(
    url: str, turns: Iterator[tuple[Exchange, int | None]], *, may_be_lost: bool = False
) -> Counter[int | None]:
    """Run the exchanges, ``AT_ONCE`` at a time; check and count their statuses, and those that are lost."""
    clients = Clients(url)
    seen: Counter[int | None] = Counter()

    async def one() -> None:
        for exchange, expected in turns:
            try:
                status = await exchange(url, clients)
            except (ConnectionError, asyncio.IncompleteReadError):
                if not may_be_lost:
                    raise
                seen[LOST] += 1
                continue
            assert status == expected, (status, expected)
            seen[expected] += 1

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    clients.close()
    return seen


@pytest.mark.slow
def test_ten_thousand_mixed_requests_leave_nothing_behind() -> None:
    """One to two minutes."""
    with server_process("--checkpoint", MODEL) as server:
        pid = server.process.pid
        idle = idle_holdings(server.url, pid)
        run(exchange_many(server.url, itertools.islice(mixed(0), WARM_UP)))
        until(lambda: holdings(pid).descriptors <= idle.descriptors)
        before = holdings(pid)
        begun = time.monotonic()
        seen = run(exchange_many(server.url, itertools.islice(mixed(1), REQUESTS)))
        seconds = time.monotonic() - begun
        until(lambda: holdings(pid).descriptors <= idle.descriptors)
        after = holdings(pid)
        print(
            f"\n{REQUESTS} requests in {seconds:.0f} s ({dict(seen)}): memory {idle.megabytes:.0f} MB at the start, "
            f"{before.megabytes:.1f} MB after warm-up, {after.megabytes:.1f} MB at the end; "
            f"descriptors {before.descriptors}, {after.descriptors}; threads {before.threads}, {after.threads}"
        )
        assert after.megabytes - before.megabytes < MEGABYTES
        assert after.descriptors <= before.descriptors
        assert after.threads <= before.threads
        server.stop()
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_processes_that_die_lose_what_they_held_and_no_count() -> None:
    """As long as ``SOAK_SECONDS`` says, one minute by default."""
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    with server_process("--checkpoint", MODEL, "--processes", "2", "--workers", "2", "--queue", "64") as server:
        supervisor = server.process.pid
        run(exchange_many(server.url, itertools.islice(mixed(0), WARM_UP)))
        counted_before = counted(server.url)
        before = holdings(supervisor)
        largest = max(holdings(worker).megabytes for worker in children(supervisor))
        deaths = 0

        async def kill_one_after_the_other() -> None:
            nonlocal deaths
            while True:
                await asyncio.sleep(KILL_SECONDS)
                victims = children(supervisor)
                os.kill(victims[deaths % len(victims)], signal.SIGKILL)
                deaths += 1

        async def main() -> Counter[int | None]:
            end = time.monotonic() + seconds
            killer = asyncio.create_task(kill_one_after_the_other())
            turns = itertools.takewhile(lambda _: time.monotonic() < end, mixed(1))
            seen = await exchange_many(server.url, turns, may_be_lost=True)
            killer.cancel()
            return seen

        seen = run(main())
        lost = seen.pop(LOST, 0)
        until(lambda: len(children(supervisor)) == 2)
        counts = counted(server.url) - counted_before
        after = holdings(supervisor)
        sizes = [holdings(worker).megabytes for worker in children(supervisor)]
        print(
            f"\n{deaths} deaths in {seconds:.0f} s: {dict(seen)}, {lost} lost; counted {dict(counts)}; "
            f"supervisor {before.megabytes:.1f} MB, {after.megabytes:.1f} MB, descriptors {before.descriptors}, "
            f"{after.descriptors}; the largest process {largest:.0f} MB, then {sizes}"
        )
        assert deaths > 0
        assert lost <= deaths * AT_ONCE
        for status, count in seen.items():
            if status is not None:
                # A client that left may have been answered all the same.
                assert count <= counts[status] <= count + lost + seen[None], status
        assert after.megabytes - before.megabytes < 1
        assert after.descriptors <= before.descriptors
        assert max(sizes) - largest < MEGABYTES
        assert server.stop() == 0
        assert "Traceback" not in server.log
