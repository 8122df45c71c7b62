"""The arguments of an endpoint, from what FastAPI found in its signature."""

from collections.abc import Sequence
from typing import Any

from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response


async def arguments_of(dependant: Dependant, request: Request, response: Response, errors: list[Any]) -> dict[str, Any]:
    """Return the arguments with which to call an endpoint or a dependency.

    For endpoints and dependencies that are coroutine functions, take the request, the response, and parameters of path,
    query and header fields, and nothing else. FastAPI's own ``solve_dependencies`` is for all others, too, and costs
    about ten times as much.

    Args:
        dependant: What FastAPI found in the signature.
        request: The request.
        response: The response whose header fields dependencies may set.
        errors: Gets the invalid parameters, as ``RequestValidationError`` takes them; their arguments are left out.

    """
    arguments: dict[str, Any] = {}
    for dependency in dependant.dependencies:
        invalid = len(errors)
        values = await arguments_of(dependency, request, response, errors)
        if len(errors) == invalid and dependency.call is not None and dependency.name is not None:
            arguments[dependency.name] = await dependency.call(**values)
    if dependant.request_param_name is not None:
        arguments[dependant.request_param_name] = request
    if dependant.response_param_name is not None:
        arguments[dependant.response_param_name] = response
    for fields, received in (
        (dependant.path_params, request.path_params),
        (dependant.query_params, request.query_params),
        (dependant.header_params, request.headers),
    ):
        if fields:
            values, invalid_values = _parameters(fields, received)
            arguments.update(values)
            errors.extend(invalid_values)
    return arguments


def _parameters(
    fields: Sequence[ModelField], received: dict[str, Any] | QueryParams | Headers
) -> tuple[dict[str, Any], list[Any]]:
    if received or any(field.field_info.is_required() for field in fields):
        return request_params_to_args(fields, received)
    # Most requests have no query, and to find that out for each parameter costs more than all defaults.
    return {field.name: field.get_default() for field in fields}, []
