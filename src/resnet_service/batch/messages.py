"""Messages between a cluster's driver and its workers, as JSON: unlike pickle, reading one executes nothing."""

import json

from resnet_service import errors
from resnet_service.batch.items import BatchImage
from resnet_service.batch.shards import Shard
from resnet_service.batch.worker import Outcome


def shard_text(shard: Shard) -> str:
    """Serialize a shard."""
    return json.dumps(shard.images)  # as ASCII, so that names with any bytes survive


def read_shard(text: str) -> Shard:
    """Parse the text of ``shard_text``."""
    return Shard(tuple(BatchImage(*fields) for fields in json.loads(text)))


def outcome_text(outcome: Outcome | errors.ServiceError) -> str:
    """Serialize a shard's outcome, or the service error that ends the run."""
    if isinstance(outcome, errors.ServiceError):
        return json.dumps({"error": type(outcome).__name__, "message": str(outcome)})
    return json.dumps(outcome)


def read_outcome(text: str) -> Outcome:
    """Parse the text of ``outcome_text``.

    Raises:
        ServiceError: The text holds an error.

    """
    message = json.loads(text)
    if isinstance(message, dict):
        kind: type[errors.ServiceError] = getattr(errors, message["error"])
        raise kind(message["message"])
    written, refused, unread, examples = message
    return Outcome(written, refused, unread, tuple(examples))
