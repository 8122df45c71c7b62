"""What readiness depends on after the start: sound answers, and not shutting down."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("resnet_service")

_SECONDS_BETWEEN_CHECKS = 1.0


class Health:
    """Ready until there is doubt; after that, once ``check``, a real forward pass, has not raised.

    An unready service goes on answering: each answer is checked for itself, and one image that the network cannot
    bear must not keep those of others out. Nobody has to probe for it to recover.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self.draining = False
        self._check = check
        self._sound = True
        self._checking: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests."""
        return self._sound and not self.draining

    def mark_unhealthy(self) -> None:
        """Be unready until a check succeeds; the first begins now."""
        self._sound = False
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_until_sound())

    def close(self) -> None:
        """Check no more."""
        if self._checking is not None:
            self._checking.cancel()

    async def _check_until_sound(self) -> None:
        log.error("An inference failed: unready until the model has answered a trial image.")
        while not self._sound:
            try:
                await self._check()
            except Exception as error:  # noqa: BLE001 - whatever a broken runtime raises, the model is not sound
                log.debug("The trial image failed: %s", error)
                await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)
            else:
                self._sound = True
        self._checking = None
        log.info("The model has answered a trial image: sound again.")
