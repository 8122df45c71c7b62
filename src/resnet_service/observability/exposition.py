"""Text of the metrics, rendered once for all requests that wait for it at the same time."""

import asyncio

from resnet_service.observability.metrics import Metrics


class Exposition:
    """Renders the metrics at most once in a turn of the event loop.

    Rendering occupies the event loop for about ten milliseconds. A hundred clients that ask for the metrics again and
    again would otherwise delay every other request, health probes too, by a hundred times that.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: dict[str, asyncio.Task[tuple[bytes, str]]] = {}
        self._one_a_turn = asyncio.Lock()

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the values of now or later in the format that an ``Accept`` header asks for, and its media type."""
        task = self._waiting.get(accept)
        if task is None:
            task = self._waiting[accept] = asyncio.create_task(self._render(accept))
        # A client that leaves does not take the text from the others.
        return await asyncio.shield(task)

    async def _render(self, accept: str) -> tuple[bytes, str]:
        async with self._one_a_turn:
            await asyncio.sleep(0)
            # From here on, requests would miss what is counted after this rendering, so they wait for the next.
            del self._waiting[accept]
            return self._metrics.exposition(accept)
