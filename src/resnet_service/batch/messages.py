"""What goes between a cluster's driver and its workers, as JSON: nothing is executed where it is read."""

import json

from resnet_service import errors
from resnet_service.batch.items import Image
from resnet_service.batch.shards import Shard
from resnet_service.batch.worker import Outcome


def shard_text(shard: Shard) -> str:
    """Write what a worker needs to know of a part."""
    return json.dumps(shard.images)  # ASCII, so that names with any bytes come through


def read_shard(text: str) -> Shard:
    """Read what ``shard_text`` wrote."""
    return Shard(tuple(Image(*fields) for fields in json.loads(text)))


def outcome_text(outcome: Outcome | errors.ServiceError) -> str:
    """Write what became of a part, or the error of ours that ends the run."""
    if isinstance(outcome, errors.ServiceError):
        return json.dumps({"error": type(outcome).__name__, "message": str(outcome)})
    return json.dumps(outcome)


def read_outcome(text: str) -> Outcome:
    """Read what ``outcome_text`` wrote.

    Raises:
        ServiceError: The one that was written.

    """
    told = json.loads(text)
    if isinstance(told, dict):
        kind: type[errors.ServiceError] = getattr(errors, told["error"])
        raise kind(told["message"])
    written, refused, unread, examples = told
    return Outcome(written, refused, unread, tuple(examples))
