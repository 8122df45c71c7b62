"""Who may infer: one admission for every route that does, before a byte of the body is read."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from resnet_service.api.state import Service, started_service
from resnet_service.errors import DeadlineExceeded, RequestError, ServiceError, UnsoundOutput

T = TypeVar("T")

# A picture from a client of normal speed is there within this; a slower one gives up its place until it is, so that
# places cannot be held by promising a body and not sending it.
_PROMPT_SECONDS = 0.25


class Admission:
    """A request's place in the queue, from its head to the end of its work; use it in a ``with`` block.

    Raises:
        Overloaded: There is no place.

    """

    def __init__(self, service: Service, request: Request) -> None:
        self._service = service
        self._request = request
        self._permit = service.executor.admit()
        self._lending = asyncio.get_running_loop().call_later(_PROMPT_SECONDS, self._lend)
        self._lent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lending.cancel()
        self._permit.release()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run ``function(*args)`` in a thread, once; not at all where the client leaves before it begins.

        Call it when the body has been read.

        Raises:
            Overloaded: The body came slowly, and meanwhile others have taken all places.
            DeadlineExceeded: There was no answer in time.
            ClientDisconnect: The client has left.

        """
        self._lending.cancel()
        if self._lent:
            self._permit = self._service.executor.admit()
        deadline = self._service.settings.deadline
        work = asyncio.ensure_future(self._permit.run(function, *args, deadline=deadline))
        departure = asyncio.ensure_future(self._departure())
        departure.add_done_callback(lambda _: work.cancel())
        try:
            return await work
        except asyncio.CancelledError:
            if departure.done():
                raise ClientDisconnect from None
            raise
        except (RequestError, DeadlineExceeded):
            raise
        except Exception as error:
            # An error of ours has an owner. This one is the runtime's, or the model's.
            if isinstance(error, UnsoundOutput) or not isinstance(error, ServiceError):
                self._service.health.doubt()
            raise
        finally:
            departure.cancel()

    async def _departure(self) -> None:
        """Return when the client has left; after the body, that is all there is to receive."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    def _lend(self) -> None:
        self._lent = True
        self._permit.release()


class InferenceRoute(APIRoute):
    """A route whose requests are admitted first.

    Not a dependency: FastAPI reads a declared body, JSON for example, before it asks any.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler that is called with each request."""
        handle = super().get_route_handler()

        async def handle_admitted(request: Request) -> Response:
            with Admission(started_service(request), request) as admission:
                request.state.admission = admission
                return await handle(request)

        return handle_admitted


async def _admission(request: Request) -> Admission:  # a coroutine, lest FastAPI send it through a thread pool
    admission: Admission = request.state.admission
    return admission


Admitted = Annotated[Admission, Depends(_admission)]
