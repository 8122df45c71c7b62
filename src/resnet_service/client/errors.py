"""The client's errors, as one tree.

ClientError
├── Unreachable         no connection, or it broke
├── TimedOut            connected, but no answer in time
├── UnexpectedAnswer    not an answer of this service: a proxy's page, or the fields of another version
└── ServiceRefused      4xx, with the service's reason; base of the following
    ├── Unauthorized    401 or 403: no API key, or a wrong one
    ├── Overloaded      429: the service is busy, after all retries
    └── ServerFailed    5xx
        └── Unavailable 503: the service is starting or shutting down, after all retries
"""


class ClientError(Exception):
    """Base of all errors of the client."""


class Unreachable(ClientError):
    """The connection could not be made, or it broke."""


class TimedOut(ClientError):
    """Connected, but no answer in time."""


class UnexpectedAnswer(ClientError):
    """The answer is not this service's."""


class ServiceRefused(ClientError):
    """The service refused the request, with a reason.

    Args:
        status: HTTP status.
        code: Stable error code for programs, such as ``not_an_image``; ``http_502`` if the answer is a proxy's.
        detail: A sentence for people.
        request_id: The request's ID in the service's log, if the answer has one.
        retry_after: Seconds to wait before a retry, if the answer has them.

    """

    def __init__(
        self, status: int, code: str, detail: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.retry_after = retry_after


class Unauthorized(ServiceRefused):
    """No API key, or a wrong one."""


class Overloaded(ServiceRefused):
    """The service is busy, after all retries."""


class ServerFailed(ServiceRefused):
    """The service, or a proxy in front of it, failed."""


class Unavailable(ServerFailed):
    """The service is starting or shutting down, after all retries."""
