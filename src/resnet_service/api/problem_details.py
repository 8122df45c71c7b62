"""The table from error to HTTP status, and the handlers that answer errors with ``application/problem+json``."""

import logging
from http import HTTPStatus
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from resnet_service import errors
from resnet_service.api import example_model
from resnet_service.api.schemas import Problem
from resnet_service.api.uploads import HOW_TO_SEND
from resnet_service.imaging.formats import ACCEPTED_FORMATS
from resnet_service.observability.metrics import Metrics
from resnet_service.observability.request_context import note_problem
from resnet_service.system.resources import EXHAUSTION, is_exhaustion

log = logging.getLogger("resnet_service")

MEDIA_TYPE = "application/problem+json"
# The detail of every 500: the cause is for the log, not for clients.
INTERNAL = "The service failed to answer; its log says why."

# The status of each error that clients meet, and an example of its detail, which the OpenAPI document shows; a subclass
# without a row has that of its base class. Errors without any are 500: those of model files and settings, for example,
# end the process before it serves.
_TABLE: dict[type[errors.ServiceError], tuple[HTTPStatus, str]] = {
    errors.Unauthorized: (
        HTTPStatus.UNAUTHORIZED,
        "An API key is required. Send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.",
    ),
    errors.MissingImage: (HTTPStatus.BAD_REQUEST, f"The request contains no image. {HOW_TO_SEND}"),
    errors.MalformedForm: (
        HTTPStatus.BAD_REQUEST,
        "The form cannot be parsed: Its Content-Type has no boundary. HTTP libraries write one, unless you set the "
        f"Content-Type yourself. {HOW_TO_SEND}",
    ),
    errors.MalformedJSON: (
        HTTPStatus.BAD_REQUEST,
        "The body is not an inference request: Invalid JSON: EOF while parsing an object at line 1 column 1.",
    ),
    errors.InvalidTensor: (
        HTTPStatus.BAD_REQUEST,
        "The model has no such input. Send one of image, pixels, normalized.",
    ),
    errors.TooManyImages: (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        str(errors.TooManyImages("form", 16)),
    ),
    errors.UnknownModel: (HTTPStatus.NOT_FOUND, f"This model is not served. The served model is {example_model.NAME}."),
    errors.UnsupportedMediaType: (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"The content type text/plain is not accepted. {HOW_TO_SEND}",
    ),
    errors.NotAnImage: (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"This is a PDF document; the accepted formats are {', '.join(ACCEPTED_FORMATS)}.",
    ),
    errors.BrokenImage: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "This looks like a PNG image, but it is damaged or incomplete and cannot be decoded.",
    ),
    errors.UnsupportedImage: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "This is a JPEG image with 12-bit samples, which is not supported. Save it as JPEG or PNG, with 8 bits.",
    ),
    errors.BodyTooLarge: (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The request body has at least 31.0 MB; the limit is 10.0 MB.",
    ),
    errors.TooManyPixels: (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The image has 56,000,000 pixels (8000x7000); the limit is 50,000,000.",
    ),
    errors.DecodingTooLarge: (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "Decoding this image takes up to 900 MB of memory; the limit is 805 MB. Send it with fewer pixels, or as a "
        "baseline JPEG.",
    ),
    errors.InvalidTopK: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "top_k is 11; it must be between 1 and 10, because this model has 10 classes.",
    ),
    errors.InvalidClassId: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "class_id is 10; it must be between 0 and 9, because this model has 10 classes.",
    ),
    errors.UnsupportedLanguage: (
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "lang is 'fr'; supported languages are en, zh.",
    ),
    errors.HeadTooLarge: (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        str(errors.HeadTooLarge(16384, 100)),
    ),
    errors.MalformedRequest: (HTTPStatus.BAD_REQUEST, str(errors.MalformedRequest())),
    errors.RequestTooSlow: (HTTPStatus.REQUEST_TIMEOUT, "The request's headers came too slowly."),
    errors.OutOfResources: (HTTPStatus.SERVICE_UNAVAILABLE, str(errors.OutOfResources())),
    errors.Overloaded: (HTTPStatus.TOO_MANY_REQUESTS, "The request queue is full. Try again in 1 s."),
    errors.BodyBudgetExceeded: (
        HTTPStatus.TOO_MANY_REQUESTS,
        "The memory budget for request bodies is used up. Try again in 1 s.",
    ),
    errors.TooManyConnections: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        str(errors.TooManyConnections()),
    ),
    errors.DeadlineExceeded: (HTTPStatus.GATEWAY_TIMEOUT, "There was no answer within 30 s. Try again later."),
    errors.NotReady: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        str(errors.NotReady()),
    ),
    errors.OutputUnavailable: (
        HTTPStatus.NOT_IMPLEMENTED,
        "Class activation maps need a network that ends in global average pooling and one linear layer. vgg11 does "
        "not, so its answers cannot be explained.",
    ),
    errors.InvalidModelOutput: (HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL),
}


class Kind(NamedTuple):
    """One kind of error as clients meet it: when it occurs, and an example of its detail."""

    status: HTTPStatus
    code: str
    meaning: str
    example: str


def _kind(error: type[errors.ServiceError]) -> Kind:
    status, example = _TABLE[error]
    meaning = (error.__doc__ or "").partition("\n")[0].replace("``", "`")
    return Kind(status, error.code, meaning, example)


KINDS = {error: _kind(error) for error in _TABLE}
# These come from FastAPI or from Python, not from a class of ours.
INVALID_REQUEST = Kind(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_request",
    "A parameter has an invalid value.",
    "normalize: Input should be a valid boolean, unable to interpret input.",
)
INTERNAL_ERROR = Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "The service failed unexpectedly.", INTERNAL)
NOT_FOUND = Kind(HTTPStatus.NOT_FOUND, "not_found", "The path does not exist.", "")
METHOD_NOT_ALLOWED = Kind(
    HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "The path does not support this method.", ""
)
# A parameter that FastAPI finds invalid has the same code as one that we find invalid.
_PARAMETERS = {"top_k": errors.InvalidTopK.code, "class_id": errors.InvalidClassId.code}


def problems_table() -> str:
    """Return every error that clients can meet as a Markdown table, as ``docs/api.md`` shows it."""
    kinds = sorted([*KINDS.values(), INVALID_REQUEST, INTERNAL_ERROR, NOT_FOUND, METHOD_NOT_ALLOWED])
    rows = [f"| {kind.status:d} | `{kind.code}` | {kind.meaning} |" for kind in kinds]
    return "\n".join(["| status | `code` | when |", "|---|---|---|", *rows])


def status_of(error: type[errors.ServiceError]) -> HTTPStatus:
    """Return the HTTP status of an error: that of its own row, or of its nearest base class with one."""
    return next((_TABLE[base][0] for base in error.__mro__ if base in _TABLE), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(status: int, code: str, detail: str) -> Problem:
    """Describe an error in the shape of RFC 9457."""
    return Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)


def problem_of(error: errors.ServiceError) -> Problem:
    """Describe an error of ours; the details of a 500 stay in the log."""
    status = status_of(type(error))
    return problem(status, error.code, INTERNAL if status == HTTPStatus.INTERNAL_SERVER_ERROR else str(error))


def is_foreign(path: str) -> bool:
    """Return whether the path belongs to another protocol, whose errors are ``{"error": …}``."""
    return path == "/" or path == "/v2" or path.startswith("/v2/")


def respond(status: int, code: str, detail: str, headers: dict[str, str] | None = None, *, path: str = "") -> Response:
    """Return the response for an error, and note its code for log and metrics.

    Args:
        status: The HTTP status.
        code: The stable code.
        detail: A sentence for people.
        headers: Further headers of the response.
        path: The request's path, which decides the shape: a problem document, or another protocol's.

    """
    note_problem(code)
    if is_foreign(path):
        return JSONResponse({"error": detail}, status, headers)
    return Response(problem(status, code, detail).model_dump_json(), status, headers, MEDIA_TYPE)


def respond_to(error: errors.ServiceError, path: str = "") -> Response:
    """Return the response for an error of ours."""
    details = problem_of(error)
    return respond(details.status, details.code, details.detail, _headers(error), path=path)


def _headers(error: errors.ServiceError) -> dict[str, str] | None:
    if isinstance(error, errors.Overloaded | errors.OutOfResources):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.Unauthorized):
        # RFC 6750, section 3: the scheme, and at least one parameter.
        return {"WWW-Authenticate": 'Bearer realm="resnet-service"'}
    return None


def install(app: FastAPI) -> None:
    """Register the handlers of all errors."""
    app.add_exception_handler(errors.ServiceError, _service_error)
    for kind in EXHAUSTION:
        app.add_exception_handler(kind, _exhausted)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, unexpected)


async def _service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.ServiceError):  # Starlette's signature is wider than its calls
        raise error
    if isinstance(error, errors.OutOfResources):
        log.error("%s Cause: %s", error, _described(error.__cause__))
    if isinstance(error, errors.BrokenImage):  # some others are raised before there is a service
        note_decoder_failure(error, request.app.state.service.metrics)
    return respond_to(error, request.url.path)


def note_decoder_failure(error: errors.ServiceError, metrics: Metrics) -> None:
    """Log and count what a decoder raised, if that is the error's cause."""
    if isinstance(error, errors.BrokenImage) and (cause := _root(error)) is not None:
        kind = type(cause).__name__
        log.info("The decoder failed: %s: %s", kind, cause)
        metrics.decoder_failed(kind)


def _described(cause: BaseException | None) -> str:
    """Return an exception's type and text; a ``MemoryError`` mostly has no text."""
    if cause is None:
        return "unknown"
    return f"{type(cause).__name__}: {cause}".removesuffix(": ")


async def _exhausted(request: Request, error: Exception) -> Response:
    if not is_exhaustion(error):
        raise error
    log.error("The service is out of resources: %s", _described(error))
    return respond_to(errors.OutOfResources(), request.url.path)


def _root(error: BaseException) -> BaseException | None:
    """Return what a decoder raised, if an error of ours has such a cause."""
    cause = error.__cause__
    while isinstance(cause, errors.ServiceError):
        cause = cause.__cause__
    return cause


async def _invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    finding = error.errors()[0]
    parameter = str(finding["loc"][-1])
    code = _PARAMETERS.get(parameter, INVALID_REQUEST.code)
    return respond(INVALID_REQUEST.status, code, f"{parameter}: {finding['msg']}.", path=request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    detail = f"{request.method} {request.url.path}: {status.description}."
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":  # HeadMiddleware answers the other
        headers["Allow"] = "GET, HEAD"
    return respond(status, code, detail, headers, path=request.url.path)


async def _disconnected(request: Request, error: Exception) -> Response:
    # The client has left. This response, which it will not read, keeps the log from reporting a failure of the service.
    return respond(HTTPStatus.BAD_REQUEST, "client_disconnected", "The request ended before its body did.")


async def unexpected(request: Request, error: Exception) -> Response:
    """Return the response for an error that no handler expects."""
    # Uvicorn closes the connection after this; a client that does not know would send its next request into it.
    return respond(INTERNAL_ERROR.status, INTERNAL_ERROR.code, INTERNAL, {"Connection": "close"}, path=request.url.path)
