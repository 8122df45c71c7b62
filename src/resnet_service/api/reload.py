"""Another model beside the one that serves, then in its place."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from resnet_service.errors import ServiceError
from resnet_service.inference.base import ImageClassifier

log = logging.getLogger("resnet_service")


class Reloader:
    """Opens the model file again when asked, one time at a time.

    Args:
        open_: Loads, checks and warms up a classifier, or raises; called in a thread of its own, since the threads that
            infer have other work, and the loop must turn.
        install: Takes the classifier that serves from then on; where it raises, the old one goes on.

    """

    def __init__(
        self, open_: Callable[[], ImageClassifier], install: Callable[[ImageClassifier], Awaitable[None]]
    ) -> None:
        self._open = open_
        self._install = install
        self._reloading: asyncio.Task[None] | None = None
        self._again = False

    @property
    def busy(self) -> bool:
        """Whether a reload is in progress."""
        return self._reloading is not None

    def request(self) -> None:
        """Reload now, or once more when the reload in progress ends: the file may have changed since it was read."""
        if self._reloading is None:
            self._reloading = asyncio.create_task(self._reload())
        else:
            self._again = True

    def close(self) -> None:
        """Swap no more."""
        if self._reloading is not None:
            self._reloading.cancel()

    async def _reload(self) -> None:
        while True:
            self._again = False
            try:
                await self._install(await asyncio.to_thread(self._open))
            except ServiceError as error:
                log.error("The old model goes on serving: %s", error)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the new file, the old model serves
                log.error("The old model goes on serving: the new one failed with %s.", type(error).__name__)
            if not self._again:
                break
        self._reloading = None
