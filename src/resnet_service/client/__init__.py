"""A client for the service: typed answers, typed errors, bounded retries; needs only httpx.

>>> from resnet_service.client import Client
>>> with Client("http://localhost:8080") as client:
...     client.predict("cat.jpg").best.label
'Egyptian cat'
"""

from resnet_service.client.answers import (
    BatchAnswer,
    Class,
    Embedding,
    Explanation,
    Failure,
    ImageFacts,
    Labels,
    Metadata,
    Model,
    PredictAnswer,
    Prediction,
    Region,
    Timing,
)
from resnet_service.client.async_client import AsyncClient
from resnet_service.client.client import Client
from resnet_service.client.errors import (
    ClientError,
    Overloaded,
    ServerFailed,
    ServiceRefused,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from resnet_service.client.images import ImageSource

__all__ = [
    "AsyncClient",
    "BatchAnswer",
    "Class",
    "Client",
    "ClientError",
    "Embedding",
    "Explanation",
    "Failure",
    "ImageFacts",
    "ImageSource",
    "Labels",
    "Metadata",
    "Model",
    "Overloaded",
    "PredictAnswer",
    "Prediction",
    "Region",
    "ServerFailed",
    "ServiceRefused",
    "TimedOut",
    "Timing",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
]
