"""Reloading the model: load the new one while the old one serves, then replace it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from resnet_service.errors import ServiceError
from resnet_service.inference.base import ImageClassifier

log = logging.getLogger("resnet_service")


class Reloader:
    """Loads the model file again on request, once at a time.

    Args:
        open_model: Loads, checks and warms up a classifier, or raises; called in a thread of its own, so that neither
            the inference threads nor the event loop wait for it.
        install: Makes the service use the classifier; if it raises, the old one continues to serve.
        on_attempt: Called after each reload with whether it succeeded.

    """

    def __init__(
        self,
        open_model: Callable[[], ImageClassifier],
        install: Callable[[ImageClassifier], Awaitable[None]],
        on_attempt: Callable[[bool], None],
    ) -> None:
        self._open_model = open_model
        self._install = install
        self._on_attempt = on_attempt
        self._reloading: asyncio.Task[None] | None = None
        self._again = False
        # Called when no more reloads are requested, with whether the last one succeeded.
        self.on_idle: Callable[[bool], None] = lambda succeeded: None

    @property
    def busy(self) -> bool:
        """Whether a reload is in progress."""
        return self._reloading is not None

    def request(self) -> None:
        """Reload now; if a reload is in progress, once more after it, since the file may have changed meanwhile."""
        if self._reloading is None:
            self._reloading = asyncio.create_task(self._reload())
        else:
            self._again = True

    def close(self) -> None:
        """Cancel a reload in progress."""
        if self._reloading is not None:
            self._reloading.cancel()

    async def _reload(self) -> None:
        while True:
            self._again = succeeded = False
            try:
                await self._install(await asyncio.to_thread(self._open_model))
                succeeded = True
            except ServiceError as error:
                log.error("Reload failed; the old model keeps serving: %s", error)
            except Exception as error:  # noqa: BLE001 - whatever fails, the old model keeps serving
                log.error("Reload failed; the old model keeps serving: %s", type(error).__name__)
            self._on_attempt(succeeded)
            if not self._again:
                break
        self._reloading = None
        self.on_idle(succeeded)
