"""Rendering the metrics once for all that wait, without missing what they have counted."""

import asyncio

from resnet_service.observability.exposition import Exposition
from resnet_service.observability.metrics import Metrics


class CountingMetrics(Metrics):
    """Counts how often, and between how many turns of the event loop, it is rendered."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[int] = []
        self.turn = 0

    def exposition(self, accept: str) -> tuple[bytes, str]:
        self.turns.append(self.turn)
        return accept.encode(), "text/plain"


async def render_all(metrics: CountingMetrics, accepted: list[str]) -> list[tuple[bytes, str]]:
    exposition = Exposition(metrics)
    asked = asyncio.gather(*(exposition.render(accept) for accept in accepted))
    while not asked.done():
        metrics.turn += 1
        await asyncio.sleep(0)
    return await asked


def test_requests_of_one_turn_share_one_rendering() -> None:
    metrics = CountingMetrics()
    assert asyncio.run(render_all(metrics, ["a"] * 100)) == [(b"a", "text/plain")] * 100
    assert len(metrics.turns) == 1


def test_no_turn_of_the_event_loop_renders_twice() -> None:
    metrics = CountingMetrics()
    accepted = [str(number) for number in range(10)]
    assert asyncio.run(render_all(metrics, accepted)) == [(accept.encode(), "text/plain") for accept in accepted]
    assert len(set(metrics.turns)) == len(metrics.turns) == 10


def test_a_request_that_came_after_a_rendering_gets_the_next() -> None:
    metrics = CountingMetrics()

    async def twice() -> None:
        exposition = Exposition(metrics)
        await exposition.render("")
        await exposition.render("")

    asyncio.run(twice())
    assert len(metrics.turns) == 2


def test_a_client_that_leaves_does_not_take_the_text_from_another() -> None:
    async def leave() -> tuple[bytes, str]:
        exposition = Exposition(CountingMetrics())
        first, second = (asyncio.create_task(exposition.render("a")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.wait_for(second, 5)

    assert asyncio.run(leave())[0] == b"a"
