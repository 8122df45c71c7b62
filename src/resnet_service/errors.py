"""Everything that this package refuses, as one tree.

    ServiceError
    ├── RequestError                    what a client sent cannot be answered
    │   ├── Unauthorized                the request carries no valid API key
    │   ├── MissingImage                the request carries no image
    │   ├── MalformedForm               a multipart body that is not one
    │   ├── MalformedJSON               a JSON body that is not one, or not what the route reads
    │   ├── InvalidTensor               a tensor's name, type, shape or data are not what the model takes or gives
    │   ├── TooManyImages             more images in one request than the limit
    │   ├── UnknownModel                not the model that is served, or not its version
    │   ├── UnsupportedMediaType        the body is of a kind that is never read
    │   ├── NotAnImage                  the bytes are of no accepted image format
    │   ├── BrokenImage                 the right format, but damaged
    │   ├── BodyTooLarge                more bytes than the limit
    │   ├── TooManyPixels               more pixels than the limit
    │   ├── HeadTooLarge                a request line and header fields beyond the limits
    │   ├── MalformedRequest            not HTTP, or not as its grammar has it
    │   ├── RequestTooSlow              head or body came too slowly
    │   ├── InvalidTopK                 outside 1 ... number of classes
    │   ├── InvalidClassId              outside 0 ... number of classes - 1
    │   └── UnsupportedLanguage         asks for names in a language that no names are in
    ├── ModelError                      a model file cannot be trusted or understood
    │   ├── ModelFileNotFound           no such file
    │   ├── UnreadableModel             empty, truncated, damaged, another kind of file
    │   ├── SuspiciousModel             sizes, entries or references that no honest file has
    │   ├── PickledCode                 holds Python objects, not only tensors
    │   ├── BareStateDict               tensors without the metadata that inference needs
    │   ├── InvalidMetadata             metadata missing, mistyped or contradictory
    │   ├── UnknownArchitecture         no builder of that name
    │   ├── StateDictMismatch           keys or shapes differ from the architecture
    │   ├── ClassCountMismatch          num_classes, classifier and labels disagree
    │   ├── NonFiniteWeights            NaN or infinity among the weights
    │   ├── InvalidLabelSet             label file missing or malformed
    │   └── LabelDigestMismatch         not the labels that the model was trained with
    ├── FileNotWritten                  the disk is full, the folder is read-only, …
    ├── InvalidSettings                 an option is mistyped or out of range
    ├── AddressUnavailable              the address cannot be listened on
    ├── RuntimeUnavailable              the chosen runtime's packages are not installed
    ├── TracingUnavailable              what tracing needs is not installed
    ├── UnsuitableRuntime               the chosen runtime does not run this kind of file
    ├── AccuracyLossExceeded            exporting would change more answers than was allowed
    ├── OutputUnavailable               the model gives no class activation map, or no embedding
    ├── InvalidModelOutput              the network answered NaN, infinity or the wrong shape
    ├── NotReady                        still loading, re-checking the model, or already shutting down
    ├── Overloaded                      as many requests as may wait are waiting
    │   └── BodyBudgetExceeded          as many bytes of bodies as may be held are held
    ├── TooManyConnections              as many connections as may be open are open
    ├── DeadlineExceeded                no answer within the time that a request may take
    ├── DatasetError                    a data set cannot be evaluated on
    │   ├── InvalidDataset              of no known layout, damaged, or empty
    │   └── UnknownClass                has a class that the model does not have
    ├── BatchError                      stored images cannot be classified as a batch
    │   ├── InvalidBatchInput           no images there, or not to be read
    │   ├── OutputConflict              the output holds something else than this batch's results
    │   ├── OutputInUse                 another run is writing there
    │   └── ClusterFailed               Ray cannot be reached, or its workers do not start
    └── SourceError                     weights could not be fetched
        ├── SourceUnreachable           no answer in time
        └── SourceDigestMismatch        not the bytes that were promised

Each class has a stable ``code``; each message is safe to show to whoever caused the error and says what to do
about it. HTTP is not mentioned here: ``api.problems`` maps every class to a status.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Root of all errors of this package; ``str(error)`` is safe to show."""

    code: ClassVar[str]


class RequestError(ServiceError):
    """What a client sent cannot be answered."""


class Unauthorized(RequestError):
    """The request carries no valid API key."""

    code = "unauthorized"


class MissingImage(RequestError):
    """The request carries no image."""

    code = "no_file"


class MalformedForm(RequestError):
    """A multipart body that is not one."""

    code = "malformed_form"


class MalformedJSON(RequestError):
    """A JSON body that is not one, or not what the route reads."""

    code = "malformed_json"


class InvalidTensor(RequestError):
    """A tensor's name, type, shape or data are not what the model takes or gives."""

    code = "invalid_tensor"


class TooManyImages(RequestError):
    """More images in one request than the limit."""

    code = "too_many_pictures"


class UnknownModel(RequestError):
    """Not the model that is served, or not the version of it that is served."""

    code = "unknown_model"


class UnsupportedMediaType(RequestError):
    """The body is of a kind that is never read."""

    code = "unsupported_media_type"


class NotAnImage(RequestError):
    """The bytes are of no accepted image format."""

    code = "not_an_image"


class BrokenImage(RequestError):
    """The bytes begin like an image, but do not decode."""

    code = "broken_image"


class BodyTooLarge(RequestError):
    """More bytes than the limit."""

    code = "body_too_large"


class TooManyPixels(RequestError):
    """More pixels than the limit."""

    code = "too_many_pixels"


class HeadTooLarge(RequestError):
    """A request line and header fields beyond the limits."""

    code = "head_too_large"


class MalformedRequest(RequestError):
    """Not HTTP, or not as its grammar has it."""

    code = "malformed_request"


class RequestTooSlow(RequestError):
    """Head or body came too slowly."""

    code = "request_too_slow"


class InvalidTopK(RequestError):
    """``top_k`` lies outside 1 ... number of classes."""

    code = "invalid_top_k"


class InvalidClassId(RequestError):
    """``class_id`` lies outside 0 ... number of classes - 1."""

    code = "invalid_class_id"


class UnsupportedLanguage(RequestError):
    """``lang`` names a language that the service does not have."""

    code = "unsupported_language"


class ModelError(ServiceError):
    """A model file cannot be trusted or understood."""


class ModelFileNotFound(ModelError):
    """There is no such model file."""

    code = "model_file_not_found"


class UnreadableModel(ModelError):
    """Empty, truncated, damaged, or another kind of file."""

    code = "unreadable_model"


class SuspiciousModel(ModelError):
    """Sizes, entries or references out of the bounds that an honest model file keeps."""

    code = "suspicious_model"


class PickledCode(ModelError):
    """The file holds Python objects, not only tensors and plain values."""

    code = "pickled_code"


class BareStateDict(ModelError):
    """Tensors without the metadata that inference needs."""

    code = "bare_state_dict"


class InvalidMetadata(ModelError):
    """Metadata missing, mistyped or contradictory."""

    code = "invalid_metadata"


class UnknownArchitecture(ModelError):
    """No builder of that name."""

    code = "unknown_architecture"


class StateDictMismatch(ModelError):
    """Keys or shapes differ from the architecture."""

    code = "state_dict_mismatch"


class ClassCountMismatch(ModelError):
    """``num_classes``, the classifier's rows and the label set disagree."""

    code = "class_count_mismatch"


class NonFiniteWeights(ModelError):
    """NaN or infinity among the weights."""

    code = "non_finite_weights"


class InvalidLabelSet(ModelError):
    """A label file is missing or malformed."""

    code = "invalid_label_set"


class LabelDigestMismatch(ModelError):
    """Not the labels that the model was trained with."""

    code = "label_digest_mismatch"


class FileNotWritten(ServiceError):
    """The disk is full, the folder is read-only, …"""

    code = "file_not_written"


class InvalidSettings(ServiceError):
    """An option is mistyped or out of range."""

    code = "invalid_settings"


class AddressUnavailable(ServiceError):
    """The address cannot be listened on."""

    code = "address_unavailable"


class RuntimeUnavailable(ServiceError):
    """The chosen runtime's packages are not installed."""

    code = "runtime_unavailable"


class TracingUnavailable(ServiceError):
    """What tracing needs is not installed."""

    code = "tracing_unavailable"


class UnsuitableRuntime(ServiceError):
    """The chosen runtime does not run this kind of file."""

    code = "unsuitable_runtime"


class AccuracyLossExceeded(ServiceError):
    """Exporting would change more answers than was allowed."""

    code = "too_lossy"


class OutputUnavailable(ServiceError):
    """The model gives no class activation map, or no embedding; the message says whether anything can be done."""

    code = "output_unavailable"


class InvalidModelOutput(ServiceError):
    """The network answered NaN, infinity or the wrong shape."""

    code = "unsound_output"


class NotReady(ServiceError):
    """Still loading, re-checking the model, or already shutting down."""

    code = "not_ready"


class Overloaded(ServiceError):
    """As many requests as may wait are waiting; ``retry_after`` is when to come again, in whole seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BodyBudgetExceeded(Overloaded):
    """As many bytes of bodies as may be held are held."""

    code = "too_many_bytes"


class TooManyConnections(ServiceError):
    """As many connections as may be open are open."""

    code = "too_many_connections"


class DeadlineExceeded(ServiceError):
    """No answer within the time that a request may take."""

    code = "deadline_exceeded"


class DatasetError(ServiceError):
    """A data set cannot be evaluated on."""


class InvalidDataset(DatasetError):
    """A data set of no known layout, damaged, or empty."""

    code = "invalid_dataset"


class UnknownClass(DatasetError):
    """A data set has a class that the model does not have."""

    code = "unknown_class"


class BatchError(ServiceError):
    """Stored images cannot be classified as a batch."""


class InvalidBatchInput(BatchError):
    """There are no images, or they cannot be read at all."""

    code = "invalid_batch_input"


class OutputConflict(BatchError):
    """The output holds something else than this batch's results."""

    code = "output_conflict"


class OutputInUse(BatchError):
    """Another run is writing to the same output."""

    code = "output_in_use"


class ClusterFailed(BatchError):
    """Ray cannot be reached, or its workers do not start."""

    code = "cluster_failed"


class SourceError(ServiceError):
    """Weights could not be fetched."""

    code = "source_error"


class SourceUnreachable(SourceError):
    """A source of weights did not answer in time."""

    code = "source_unreachable"


class SourceDigestMismatch(SourceError):
    """What arrived are not the bytes that were promised."""

    code = "source_digest_mismatch"
