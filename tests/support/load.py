"""Many clients in one thread, cheap enough to run beside the server that they load.

An HTTP library's own cost would be most of what is measured on a machine that the server has to share with it.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import uvloop

T = TypeVar("T")

ANSWER_SECONDS = 60


class Answer(NamedTuple):
    """A status, and the seconds from the first byte sent to the last byte received."""

    status: int
    seconds: float


class Connection:
    """One connection that lives from answer to answer, for as long as the server lets it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def closed(self) -> bool:
        """Whether either side has closed it, as far as is known."""
        return self._writer.is_closing()

    @classmethod
    async def open(cls, url: str) -> Self:
        host, port = url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, request: bytes, *, pieces: int = 1, pause: float = 0) -> Answer:
        """Send a request, in ``pieces`` with a ``pause`` in seconds between them, and read its answer."""
        async with asyncio.timeout(ANSWER_SECONDS):
            begun = time.perf_counter()
            size = -(-len(request) // pieces)
            for start in range(0, len(request), size):
                if start:
                    await asyncio.sleep(pause)
                if self.closed:
                    raise ConnectionResetError
                self._writer.write(request[start : start + size])
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            await self._reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            if b"connection: close" in head:
                self.close()
            return Answer(int(head[9:12]), time.perf_counter() - begun)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()


class Clients:
    """A pool of connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: list[Connection] = []

    async def ask(self, request: bytes, **how: Any) -> Answer:
        """Send a request over a free connection, or a new one."""
        connection = self._free.pop() if self._free else await Connection.open(self._url)
        try:
            answer = await connection.ask(request, **how)
        except BaseException:
            connection.close()
            raise
        if not connection.closed:
            self._free.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._free:
            connection.close()
        self._free.clear()


class Load(NamedTuple):
    """The answers: ``throughput`` a second, and the sorted seconds of answered and of refused requests."""

    throughput: float
    answered: list[float]
    refused: list[float]


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def saturating(url: str, requests: Sequence[bytes], *, clients: int, seconds: float) -> Load:
    """Send requests from ``clients`` connections; each sends the next one after an answer."""

    async def main() -> Load:
        pool = Clients(url)
        begun = time.monotonic()
        answers: list[Answer] = []

        async def one(turns: Iterator[bytes]) -> None:
            while time.monotonic() - begun < seconds:
                answers.append(await pool.ask(next(turns)))

        await asyncio.gather(*(one(_in_turn(requests, first)) for first in range(clients)))
        elapsed = time.monotonic() - begun
        pool.close()
        return _load(answers, elapsed)

    return run(main())


def offered(url: str, requests: Sequence[bytes], *, rate: float, seconds: float) -> Load:
    """Send ``rate`` requests a second, without waiting for answers, as many users do."""

    async def main() -> Load:
        pool = Clients(url)
        turns = _in_turn(requests, 0)
        begun = time.monotonic()
        asked: list[asyncio.Task[Answer]] = []
        while (passed := time.monotonic() - begun) < seconds:
            while len(asked) < rate * passed:
                asked.append(asyncio.create_task(pool.ask(next(turns))))
            await asyncio.sleep(1 / rate)
        answers = await asyncio.gather(*asked)
        # Requests that are queued when the last one is sent are answered later, without competition.
        elapsed = time.monotonic() - begun
        pool.close()
        return _load(answers, elapsed)

    return run(main())


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a uvloop event loop, as the server uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _in_turn(requests: Sequence[bytes], first: int) -> Iterator[bytes]:
    while True:
        yield requests[first % len(requests)]
        first += 1


def _load(answers: Sequence[Answer], seconds: float) -> Load:
    strange = {answer.status for answer in answers} - {200, 429}
    assert not strange, strange
    answered = sorted(answer.seconds for answer in answers if answer.status == 200)
    refused = sorted(answer.seconds for answer in answers if answer.status == 429)
    return Load(len(answered) / seconds, answered, refused)
