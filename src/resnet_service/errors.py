"""Every error that this package raises on purpose; each class has a stable code.

The first sentence of a class's docstring says when the error occurs, and is its row in the documentation. Messages say
what to do, and are safe to show to the client or user that caused the error. Nothing here knows HTTP:
``api.problem_details`` has the one table of statuses.
"""

from typing import ClassVar


def install_hint(extra: str) -> str:
    """Return the sentence of a message that says how to install an extra of this package.

    The command is for this interpreter and, if known, for the folder or file that the package was installed from; a
    checkout that is installed as such (editable) stays so.
    """
    import json
    import shlex
    import sys
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        origin = json.loads(distribution("resnet-service").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # it runs from its source
        origin = {}
    url = str(origin.get("url", ""))
    known = url.startswith("file://") and "%" not in url
    editable = "--editable " if known and origin.get("dir_info", {}).get("editable") else ""
    begin = "Install" if known else "In a checkout of resnet-service, install"
    what = shlex.quote(f"{url.removeprefix('file://') if known else '.'}[{extra}]")
    return f"{begin} the extra {extra}: {shlex.quote(sys.executable)} -m pip install {editable}{what}"


class ServiceError(Exception):
    """Base class of all errors of this package; ``str(error)`` is safe to show."""

    code: ClassVar[str]


class RequestError(ServiceError):
    """The client's request cannot be answered."""


class Unauthorized(RequestError):
    """The API key is missing or not valid."""

    code = "unauthorized"


class MissingImage(RequestError):
    """The request contains no image."""

    code = "no_file"


class MalformedForm(RequestError):
    """The multipart body cannot be parsed."""

    code = "malformed_form"


class MalformedJSON(RequestError):
    """The JSON body cannot be parsed, or does not match the route's schema."""

    code = "malformed_json"


class InvalidTensor(RequestError):
    """A tensor's name, type, shape or data do not match the model's inputs or outputs."""

    code = "invalid_tensor"


class TooManyImages(RequestError):
    """The request contains more images than the limit.

    Args:
        container: What contains them: the form, or a tensor.
        limit: The limit.

    """

    code = "too_many_pictures"

    def __init__(self, container: str, limit: int) -> None:
        super().__init__(f"The {container} has more images than the limit of {limit}. Send them in several requests.")


class UnknownModel(RequestError):
    """The path names a model or a version that is not served."""

    code = "unknown_model"


class UnsupportedMediaType(RequestError):
    """The route does not accept this content type or content encoding."""

    code = "unsupported_media_type"


class NotAnImage(RequestError):
    """The bytes are not an image in an accepted format."""

    code = "not_an_image"


class BrokenImage(RequestError):
    """The bytes begin like an image, but cannot be decoded."""

    code = "broken_image"


class UnsupportedImage(RequestError):
    """The image is of a kind of its format that is not supported."""

    code = "unsupported_image"


class BodyTooLarge(RequestError):
    """The body, or one image of a batch, is larger than the limit."""

    code = "body_too_large"


class TooManyPixels(RequestError):
    """The image has more pixels than the limit."""

    code = "too_many_pixels"


class DecodingTooLarge(RequestError):
    """Decoding the image takes more memory than the limit."""

    code = "decoding_too_large"


class HeadTooLarge(RequestError):
    """The request line and headers are larger than the limits.

    Args:
        max_bytes: The limit of their bytes.
        max_fields: The limit of header fields.

    """

    code = "head_too_large"

    def __init__(self, max_bytes: int, max_fields: int) -> None:
        super().__init__(
            f"The request line and headers are too large; the limits are {max_bytes} bytes and {max_fields} header "
            "fields."
        )


class MalformedRequest(RequestError):
    """The request is not valid HTTP."""

    code = "malformed_request"

    def __init__(self, message: str = "This is not a well-formed HTTP request.") -> None:
        super().__init__(message)


class RequestTooSlow(RequestError):
    """The headers or the body arrived too slowly."""

    code = "request_too_slow"


class InvalidTopK(RequestError):
    """``top_k`` is not between 1 and the number of classes."""

    code = "invalid_top_k"


class InvalidClassId(RequestError):
    """``class_id`` is not between 0 and the number of classes - 1."""

    code = "invalid_class_id"


class UnsupportedLanguage(RequestError):
    """``lang`` is not one of the supported languages."""

    code = "unsupported_language"


class ModelError(ServiceError):
    """A model file cannot be trusted or understood."""


class ModelFileNotFound(ModelError):
    """The model file does not exist."""

    code = "model_file_not_found"


class UnreadableModel(ModelError):
    """The model file is empty, truncated, damaged, or another kind of file."""

    code = "unreadable_model"


class SuspiciousModel(ModelError):
    """The model file has sizes, entries or references beyond the bounds of a regular one."""

    code = "suspicious_model"


class PickledCode(ModelError):
    """The model file contains Python objects besides tensors and plain values."""

    code = "pickled_code"


class BareStateDict(ModelError):
    """The model file has tensors, but not the metadata that inference needs."""

    code = "bare_state_dict"


class InvalidMetadata(ModelError):
    """The metadata is missing, mistyped or contradictory."""

    code = "invalid_metadata"


class UnknownArchitecture(ModelError):
    """The architecture has no builder."""

    code = "unknown_architecture"


class StateDictMismatch(ModelError):
    """The tensors' names or shapes do not match the architecture."""

    code = "state_dict_mismatch"


class ClassCountMismatch(ModelError):
    """``num_classes``, the classifier's rows and the label set disagree."""

    code = "class_count_mismatch"


class NonFiniteWeights(ModelError):
    """The weights contain NaN or infinity."""

    code = "non_finite_weights"


class InvalidLabelSet(ModelError):
    """The label file is missing or malformed."""

    code = "invalid_label_set"


class LabelDigestMismatch(ModelError):
    """The label set is not the one that the model was trained with."""

    code = "label_digest_mismatch"


class FileNotWritten(ServiceError):
    """A file cannot be written: the disk is full, or the folder is read-only."""

    code = "file_not_written"


class InvalidSettings(ServiceError):
    """A setting is mistyped or out of range."""

    code = "invalid_settings"


class AddressUnavailable(ServiceError):
    """The server cannot listen on the address."""

    code = "address_unavailable"


class RuntimeUnavailable(ServiceError):
    """The chosen runtime's packages are not installed."""

    code = "runtime_unavailable"


class TracingUnavailable(ServiceError):
    """The packages that tracing needs are not installed."""

    code = "tracing_unavailable"


class UnsuitableRuntime(ServiceError):
    """The chosen runtime cannot run this kind of file."""

    code = "unsuitable_runtime"


class AccuracyLossExceeded(ServiceError):
    """The export would lose more accuracy than allowed."""

    code = "too_lossy"


class OutputUnavailable(ServiceError):
    """The model has no class activation maps or no embeddings."""

    code = "output_unavailable"


class InvalidModelOutput(ServiceError):
    """The network returned NaN, infinity or the wrong shape."""

    code = "unsound_output"


class NotReady(ServiceError):
    """The model is loading or being checked, or the service is shutting down."""

    code = "not_ready"

    def __init__(
        self,
        message: str = "The service is not ready: it is shutting down or checking its model. Try again in a moment.",
    ) -> None:
        super().__init__(message)


class OutOfResources(ServiceError):
    """The service has no memory, file descriptors or threads left."""

    code = "out_of_resources"
    retry_after: ClassVar[int] = 1

    def __init__(self, message: str = "The service is short of memory, descriptors or threads. Try again.") -> None:
        super().__init__(message)


class Overloaded(ServiceError):
    """The request queue is full.

    Args:
        message: As for every error.
        retry_after: Seconds after which the client should try again.

    """

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BodyBudgetExceeded(Overloaded):
    """The memory budget for request bodies is used up."""

    code = "too_many_bytes"


class TooManyConnections(ServiceError):
    """The limit of open connections is reached."""

    code = "too_many_connections"

    def __init__(self, message: str = "Too many connections are open. Try again in a moment.") -> None:
        super().__init__(message)


class DeadlineExceeded(ServiceError):
    """The request was not answered before its deadline."""

    code = "deadline_exceeded"


class DatasetError(ServiceError):
    """A data set cannot be used for evaluation."""


class InvalidDataset(DatasetError):
    """The data set's layout is unknown, or it is damaged or empty."""

    code = "invalid_dataset"


class UnknownClass(DatasetError):
    """The data set has a class that the model does not have."""

    code = "unknown_class"


class BatchError(ServiceError):
    """Stored images cannot be classified as a batch."""


class InvalidBatchInput(BatchError):
    """The input has no images, or cannot be read."""

    code = "invalid_batch_input"


class OutputConflict(BatchError):
    """The output folder contains something other than this batch's results."""

    code = "output_conflict"


class OutputInUse(BatchError):
    """Another run is writing to the same output."""

    code = "output_in_use"


class ClusterFailed(BatchError):
    """Ray cannot be reached, or its workers do not start."""

    code = "cluster_failed"


class SourceError(ServiceError):
    """Weights cannot be downloaded."""

    code = "source_error"


class SourceUnreachable(SourceError):
    """The source of the weights did not answer in time."""

    code = "source_unreachable"


class SourceDigestMismatch(SourceError):
    """The downloaded file's SHA-256 is not the expected one."""

    code = "source_digest_mismatch"
