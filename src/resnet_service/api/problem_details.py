"""The one table from error to HTTP status, and the handlers that answer with ``application/problem+json``."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from resnet_service import errors
from resnet_service.api.schemas import Problem
from resnet_service.observability.request_context import note_problem

MEDIA_TYPE = "application/problem+json"

# Every class of the tree that has a code has a row; a test keeps it so. What concerns model files and settings ends
# the process before it serves, so over HTTP it can only be the server's own fault.
STATUS: dict[type[errors.ServiceError], HTTPStatus] = {
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.MissingImage: HTTPStatus.BAD_REQUEST,
    errors.MalformedForm: HTTPStatus.BAD_REQUEST,
    errors.MalformedJSON: HTTPStatus.BAD_REQUEST,
    errors.InvalidTensor: HTTPStatus.BAD_REQUEST,
    errors.TooManyImages: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnknownModel: HTTPStatus.NOT_FOUND,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.NotAnImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.BrokenImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooManyPixels: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidTopK: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidClassId: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnsupportedLanguage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.MalformedRequest: HTTPStatus.BAD_REQUEST,
    errors.RequestTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    errors.Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.BodyBudgetExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyConnections: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.OutputUnavailable: HTTPStatus.NOT_IMPLEMENTED,
    errors.InvalidModelOutput: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.RuntimeUnavailable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TracingUnavailable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.UnsuitableRuntime: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.AccuracyLossExceeded: HTTPStatus.INTERNAL_SERVER_ERROR,
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

# What FastAPI finds wrong with these has the same code as what we find.
_PARAMETERS = {"top_k": errors.InvalidTopK.code, "class_id": errors.InvalidClassId.code}

INTERNAL = "The service failed to answer; its log says why."


def problem(status: int, code: str, detail: str) -> Problem:
    """Describe an error in our own shape."""
    return Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)


def problem_of(error: errors.ServiceError) -> Problem:
    """Describe an error of ours; of what is the server's own fault, only a fixed sentence goes out."""
    status = STATUS[type(error)]
    return problem(status, error.code, INTERNAL if status == HTTPStatus.INTERNAL_SERVER_ERROR else str(error))


def is_foreign(path: str) -> bool:
    """Say whether errors on this path have the shape of other people's protocols, ``{"error": …}``."""
    return path == "/" or path == "/v2" or path.startswith("/v2/")


def respond(status: int, code: str, detail: str, headers: dict[str, str] | None = None, *, path: str = "") -> Response:
    """Make the one shape that every error has; on other people's routes, the one that their clients read.

    Whoever observes the request learns of it.

    Args:
        status: Of the answer.
        code: Stable.
        detail: A sentence for people.
        headers: Of the answer.
        path: The request's, which decides the shape.

    """
    note_problem(code)
    if is_foreign(path):
        return JSONResponse({"error": detail}, status, headers)
    return Response(problem(status, code, detail).model_dump_json(), status, headers, MEDIA_TYPE)


def respond_to(error: errors.ServiceError, path: str = "") -> Response:
    """Answer for an error of ours."""
    said = problem_of(error)
    return respond(said.status, said.code, said.detail, _headers(error), path=path)


def _headers(error: errors.ServiceError) -> dict[str, str] | None:
    if isinstance(error, errors.Overloaded):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.Unauthorized):
        # RFC 6750, section 3: the scheme, and at least one parameter.
        return {"WWW-Authenticate": 'Bearer realm="resnet-service"'}
    return None


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error in this shape."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, unexpected)


async def _service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.ServiceError):  # Starlette's signature is wider than what it calls us with
        raise error
    return respond_to(error, request.url.path)


async def _invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    finding = error.errors()[0]
    where = str(finding["loc"][-1])
    code = _PARAMETERS.get(where, "invalid_request")
    return respond(HTTPStatus.UNPROCESSABLE_ENTITY, code, f"{where}: {finding['msg']}.", path=request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    detail = f"{request.method} {request.url.path}: {status.description}."
    return respond(status, code, detail, dict(error.headers or {}), path=request.url.path)


async def _disconnected(request: Request, error: Exception) -> Response:
    # Nobody reads this; it keeps a client's leaving from being logged as the service's failure.
    return respond(HTTPStatus.BAD_REQUEST, "client_disconnected", "The request ended before its body did.")


async def unexpected(request: Request, error: Exception) -> Response:
    """Answer for what nobody has foreseen."""
    # Uvicorn closes the connection after this; a client that is not told would send its next request into it.
    return respond(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", INTERNAL, {"Connection": "close"}, path=request.url.path
    )
