"""The one table from error to HTTP status, and the handlers that answer with ``application/problem+json``."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from resnet_service import errors
from resnet_service.api.schemas import Problem

MEDIA_TYPE = "application/problem+json"

# Every class of the tree that has a code has a row; a test keeps it so. What concerns model files and settings ends
# the process before it serves, so over HTTP it can only be the server's own fault.
STATUS: dict[type[errors.ServiceError], HTTPStatus] = {
    errors.NoFile: HTTPStatus.BAD_REQUEST,
    errors.MalformedForm: HTTPStatus.BAD_REQUEST,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.NotAnImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.BrokenImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooManyPixels: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidTopK: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.MalformedRequest: HTTPStatus.BAD_REQUEST,
    errors.RequestTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    errors.Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyConnections: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UnsoundOutput: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.RuntimeUnavailable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.UnsuitableRuntime: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TooLossy: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.FileNotWritten: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidSettings: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.AddressUnavailable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ModelFileNotFound: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.UnreadableModel: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SuspiciousModel: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.PickledCode: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.BareStateDict: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidMetadata: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.UnknownArchitecture: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.StateDictMismatch: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ClassCountMismatch: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.NonFiniteWeights: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidLabelSet: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.LabelDigestMismatch: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidDataset: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.UnknownClass: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidBatchInput: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.OutputConflict: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.OutputInUse: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ClusterFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SourceError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SourceUnreachable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SourceDigestMismatch: HTTPStatus.INTERNAL_SERVER_ERROR,
}

_INTERNAL = "The service failed to answer; its log says why."


def respond(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Make the one shape that every error has."""
    phrase = HTTPStatus(status).phrase
    problem = Problem(title=phrase, status=status, code=code, detail=detail)
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def respond_to(error: errors.ServiceError) -> Response:
    """Answer for an error of ours; of what is the server's own fault, only a fixed sentence goes out."""
    status = STATUS[type(error)]
    detail = _INTERNAL if status == HTTPStatus.INTERNAL_SERVER_ERROR else str(error)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, errors.Overloaded) else None
    return respond(status, error.code, detail, headers)


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error in this shape."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _unexpected)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, object]]:
    """Return the OpenAPI responses for operations that can fail with ``statuses``."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


async def _service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.ServiceError):  # Starlette's signature is wider than what it calls us with
        raise error
    return respond_to(error)


async def _invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    finding = error.errors()[0]
    where = str(finding["loc"][-1])
    code = errors.InvalidTopK.code if where == "top_k" else "invalid_request"
    return respond(HTTPStatus.UNPROCESSABLE_ENTITY, code, f"{where}: {finding['msg']}.")


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    detail = f"{request.method} {request.url.path}: {status.description}."
    return respond(status, code, detail, dict(error.headers or {}))


async def _disconnected(request: Request, error: Exception) -> Response:
    # Nobody reads this; it keeps a client's leaving from being logged as the service's failure.
    return respond(HTTPStatus.BAD_REQUEST, "client_disconnected", "The request ended before its body did.")


async def _unexpected(request: Request, error: Exception) -> Response:
    # Uvicorn closes the connection after this; a client that is not told would send its next request into it.
    return respond(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", _INTERNAL, {"Connection": "close"})
