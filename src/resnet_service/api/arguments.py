"""The arguments of an endpoint, from what FastAPI found in its signature."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response


class Arguments:
    """The arguments with which to call an endpoint or a dependency.

    For endpoints and dependencies that are coroutine functions, take the request, the response, and parameters of path,
    query and header fields, and nothing else. FastAPI's own ``solve_dependencies`` is for all others, too, and enters a
    stack of contexts for each request, which costs more than the arguments themselves.

    Args:
        dependant: What FastAPI found in the signature.

    """

    def __init__(self, dependant: Dependant) -> None:
        self._dependencies = [
            (dependency.name, dependency.call, Arguments(dependency))
            for dependency in dependant.dependencies
            if dependency.name is not None and dependency.call is not None
        ]
        self._request, self._response = dependant.request_param_name, dependant.response_param_name
        self._path, self._query, self._header = dependant.path_params, dependant.query_params, dependant.header_params
        # Of the dependencies, too: under these names, fields of a form are parameters as well.
        self.query_names: frozenset[str] = frozenset(field.alias for field in self._query).union(
            *(arguments.query_names for _, _, arguments in self._dependencies)
        )
        # Most requests have no query, and to find that out for each parameter costs more than all defaults.
        optional = not any(field.field_info.is_required() for field in self._query)
        self._defaults = {field.name: field.get_default() for field in self._query} if optional else None

    async def of(
        self, request: Request, response: Response, errors: list[Any], query: QueryParams | None = None
    ) -> dict[str, Any]:
        """Return the arguments for one request.

        Args:
            request: The request.
            response: The response whose header fields dependencies may set.
            errors: Gets the invalid parameters, as ``RequestValidationError`` takes them; their arguments are left out.
            query: Read instead of the request's query.

        """
        arguments: dict[str, Any] = {}
        for name, call, parameters in self._dependencies:
            invalid = len(errors)
            values = await parameters.of(request, response, errors, query)
            if len(errors) == invalid:
                arguments[name] = await call(**values)
        if self._request is not None:
            arguments[self._request] = request
        if self._response is not None:
            arguments[self._response] = response
        if self._path:
            self._add(arguments, errors, self._path, request.path_params)
        if query is None and self._defaults is not None and not request.scope["query_string"]:
            arguments.update(self._defaults)
        elif self._query:
            self._add(arguments, errors, self._query, request.query_params if query is None else query)
        if self._header:
            self._add(arguments, errors, self._header, request.headers)
        return arguments

    @staticmethod
    def _add(
        arguments: dict[str, Any],
        errors: list[Any],
        fields: Sequence[ModelField],
        received: Mapping[str, Any] | QueryParams | Headers,
    ) -> None:
        values, invalid = request_params_to_args(fields, received)
        arguments.update(values)
        errors.extend(invalid)
