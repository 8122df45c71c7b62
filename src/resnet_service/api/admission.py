"""Admission of requests that infer: each needs a slot in the queue before its body is read."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from resnet_service.api.arguments import Arguments
from resnet_service.api.content_negotiation import JSON
from resnet_service.api.dependencies import Service, started_service
from resnet_service.api.uploads import check_encoding, forget_form, form_fields
from resnet_service.errors import DeadlineExceeded, InvalidModelOutput, Overloaded, RequestError, ServiceError
from resnet_service.inference.executor import Permit
from resnet_service.inference.results import Timing
from resnet_service.observability.request_context import current
from resnet_service.system.resources import is_exhaustion

T = TypeVar("T")

# A client of normal speed sends an image within this time. A slower request releases its slot until its body has
# arrived, so that clients cannot hold slots by announcing a body and not sending it.
_PROMPT_SECONDS = 0.25
# Most work ends within this time, and to watch for the client's leaving would cost more than it could save.
_UNWATCHED_SECONDS = 0.05


class Admission:
    """A request's slot in the queue, from its headers to the end of its work; use it in a ``with`` block.

    The time of each stage is observed here, so that no route has to do it.

    Raises:
        Overloaded: No slot is free.

    """

    def __init__(self, service: Service, request: Request) -> None:
        self._service = service
        self._request = request
        self._permit = self._admit()
        self._releasing = asyncio.get_running_loop().call_later(_PROMPT_SECONDS, self._release_slot)
        self._released = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._releasing.cancel()
        self._permit.release()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run ``function(*args)`` in a thread, once; not at all if the client leaves before it begins.

        Call it when the body has been read. If the result, or each element of a list, has a ``timing_ms``, its stages
        are observed.

        Raises:
            Overloaded: The body arrived slowly, and no slot is free any more.
            DeadlineExceeded: There was no result in time.
            ClientDisconnect: The client has left.

        """
        self._ensure_slot()
        return await self._while_client_stays(
            self._work(self._permit, function, *args, deadline=self._service.settings.deadline, keep=False)
        )

    async def run_each(
        self, function: Callable[..., T], pieces: Sequence[tuple[object, ...]]
    ) -> list[T | ServiceError]:
        """Run ``function(*piece)`` for each of ``pieces``, once; return results and errors in order.

        The pieces share at most one slot per thread. One slot is enough to run them all; others are taken only if they
        are free, so that no CPU is idle. Each piece queues behind earlier work.

        Raises:
            Overloaded: As for ``run``.
            DeadlineExceeded: Not all results were there in time.
            ClientDisconnect: The client has left.

        """
        self._ensure_slot()
        with ExitStack() as slots:
            permits = [self._permit]
            while len(permits) < min(len(pieces), self._service.executor.threads):
                try:
                    permits.append(slots.enter_context(self._service.executor.admit()))
                except Overloaded:
                    break
            return await self._while_client_stays(self._share_out(function, pieces, permits))

    async def _share_out(
        self, function: Callable[..., T], pieces: Sequence[tuple[object, ...]], permits: Sequence[Permit]
    ) -> list[T | ServiceError]:
        results: dict[int, T | ServiceError] = {}
        waiting = iter(enumerate(pieces))
        loop = asyncio.get_running_loop()
        deadline = self._service.settings.deadline
        end = loop.time() + deadline

        async def work(permit: Permit) -> None:
            for index, piece in waiting:
                try:
                    results[index] = await self._work(permit, function, *piece, deadline=end - loop.time(), keep=True)
                except (RequestError, InvalidModelOutput) as error:
                    if isinstance(error, InvalidModelOutput):
                        self._service.health.mark_unhealthy()
                    results[index] = error

        tasks = [asyncio.ensure_future(work(permit)) for permit in permits]
        try:
            await asyncio.gather(*tasks)
        except DeadlineExceeded:  # its message names the time that was left for one piece
            raise DeadlineExceeded(f"The batch was not finished within {deadline:g} s. Send fewer images.") from None
        finally:
            for task in tasks:
                task.cancel()
        return [results[index] for index in range(len(pieces))]

    def _ensure_slot(self) -> None:
        """Take a slot again if this request released its own.

        Raises:
            Overloaded: No slot is free.

        """
        self._releasing.cancel()
        if (ctx := current.get()) is not None:
            self._observe("receive", time.perf_counter() - ctx.begun)
        if self._released:
            self._permit = self._admit()

    async def _work(self, permit: Permit, function: Callable[..., T], *args: object, deadline: float, keep: bool) -> T:
        """Call ``Permit.run``, and observe how long the work waited for a thread."""
        try:
            return await permit.run(function, *args, deadline=deadline, keep=keep)
        finally:
            if permit.waited is not None:
                self._observe("queue", permit.waited)

    async def _while_client_stays(self, awaited: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        departure: asyncio.Task[None] | None = None

        def watch() -> None:
            nonlocal departure
            departure = asyncio.ensure_future(self._departure())
            departure.add_done_callback(stop)

        def stop(_: object) -> None:
            if working and task is not None:  # else the work has ended since the client left
                task.cancel()

        watching = asyncio.get_running_loop().call_later(_UNWATCHED_SECONDS, watch)
        working = True
        try:
            result = await awaited
        except asyncio.CancelledError:
            if departure is not None and departure.done() and task is not None and task.uncancel() == 0:
                raise ClientDisconnect from None
            raise
        except (RequestError, DeadlineExceeded):
            raise
        except Exception as error:
            # Our own errors have known causes. Any other means that the runtime or the model is broken.
            if isinstance(error, InvalidModelOutput) or not (isinstance(error, ServiceError) or is_exhaustion(error)):
                self._service.health.mark_unhealthy()
            raise
        finally:
            working = False
            watching.cancel()
            if departure is not None:
                departure.cancel()
        for timing in _timings(result):
            for stage in ("decode", "preprocess", "inference"):
                if spent := getattr(timing, stage):  # 0 if there was no such stage: tensors need no decoding
                    self._observe(stage, spent / 1000)
        return result

    def _admit(self) -> Permit:
        try:
            return self._service.executor.admit()
        except Overloaded:
            self._service.metrics.rejected()
            raise

    def _observe(self, stage: str, seconds: float) -> None:
        self._service.metrics.stage(stage, seconds)
        if (ctx := current.get()) is not None:
            ctx.add(stage, seconds)

    async def _departure(self) -> None:
        """Return when the client has left; after the body, there is nothing else to receive."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    def _release_slot(self) -> None:
        self._released = True
        self._permit.release()


def _timings(result: object) -> Iterator[Timing]:
    """Return the timings of a result, or of each element in a list; errors have none."""
    if hasattr(result, "timing_ms"):
        if result.timing_ms is not None:
            yield result.timing_ms
    elif isinstance(result, list | tuple):
        for element in result:
            yield from _timings(element)


class InferenceRoute(APIRoute):
    """A route whose requests are admitted first, and then cost little.

    A dependency would be too late to admit a request: FastAPI reads a declared body, JSON for example, before it calls
    any. The declaration of the route is FastAPI's, and so is the validation of its parameters. But FastAPI's own
    handler costs more CPU time than all protections of this service, for what these routes do not use: exit stacks,
    dependencies in threads, and the validation of a response that is already a model.

    A field of a form with the name of a query parameter counts as if it came last in the query.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        serializer = TypeAdapter(self.response_model)
        endpoint, parameters = self.endpoint, Arguments(self.dependant)

        async def arguments_of(request: Request, response: Response, query: QueryParams | None) -> dict[str, Any]:
            errors: list[Any] = []
            arguments = await parameters.of(request, response, errors, query)
            if errors:
                raise RequestValidationError(errors)
            return arguments

        async def handle(request: Request) -> Response:
            check_encoding(request)
            service = started_service(request)
            with Admission(service, request) as admission:
                request.state.admission = admission
                response = Response(media_type=JSON)  # to whose header dependencies add
                arguments = await arguments_of(request, response, None)
                try:
                    if parameters.query_names and (
                        fields := await form_fields(request, parameters.query_names, service.settings.max_batch)
                    ):
                        query = QueryParams([*request.query_params.multi_items(), *fields])
                        arguments = await arguments_of(request, response, query)
                    answer = await endpoint(**arguments)
                finally:
                    forget_form(request)
            if isinstance(answer, Response):
                return answer
            response.body = serializer.dump_json(answer)
            response.headers["content-length"] = str(len(response.body))
            return response

        return handle


async def _admission(request: Request) -> Admission:  # a coroutine, so that FastAPI does not run it in a thread
    admission: Admission = request.state.admission
    return admission


Admitted = Annotated[Admission, Depends(_admission)]
