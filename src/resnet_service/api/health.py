"""Readiness after the start: no failed inference since the last successful check, and no shutdown."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from resnet_service.errors import NotReady

log = logging.getLogger("resnet_service")

_SECONDS_BETWEEN_CHECKS = 1.0


class Health:
    """Ready until it is marked unhealthy; ready again when ``check``, a real forward pass, succeeds.

    An unready service still answers requests: every output is checked, and one image on which the network fails must
    not block other clients. The service recovers by itself, without waiting for a readiness probe. It is also unready
    while ``longest_seconds``, the time of the oldest running task, exceeds ``limit``.
    """

    def __init__(
        self, check: Callable[[], Awaitable[None]], longest_seconds: Callable[[], float], limit: float
    ) -> None:
        self.draining = False
        self._check = check
        self._healthy = True
        self._checking: asyncio.Task[None] | None = None
        self._longest_seconds = longest_seconds
        self._limit = limit
        self._stuck = False

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests."""
        return self._healthy and not self._stuck and not self.draining

    def check_ready(self) -> None:
        """Do nothing if requests may be sent.

        Raises:
            NotReady: The service is shutting down, a thread is stuck, or an inference failed and the model is being
                checked.

        """
        if self._stuck and not self.draining:
            raise NotReady(f"An inference thread has not come back for more than {self._limit:g} s.")
        if not self.ready:
            raise NotReady

    def mark_unhealthy(self) -> None:
        """Be unready until a check succeeds; the first check begins now."""
        self._healthy = False
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_until_healthy())

    async def watch_threads(self) -> None:
        """Look every second, until cancelled, whether an inference thread does not come back."""
        while True:
            await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)
            stuck = self._longest_seconds() > self._limit
            if stuck and not self._stuck:
                log.error("An inference thread has not come back for more than %g s. Not ready.", self._limit)
            elif self._stuck and not stuck:
                log.info("All inference threads have come back.")
            self._stuck = stuck

    def close(self) -> None:
        """Cancel a check in progress."""
        if self._checking is not None:
            self._checking.cancel()

    async def _check_until_healthy(self) -> None:
        log.error("An inference failed. The service is not ready until the model has classified a trial image.")
        while not self._healthy:
            try:
                await self._check()
            except Exception as error:  # noqa: BLE001 - a broken runtime may raise anything
                log.debug("The trial image failed: %s", error)
                await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)
            else:
                self._healthy = True
        self._checking = None
        log.info("The model classified a trial image. The service is ready again.")
