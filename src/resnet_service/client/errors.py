"""What can come of a request instead of an answer, as one tree.

ClientError
├── Unreachable         no connection, or it broke
├── TimedOut            connected, but no answer in time
├── UnexpectedAnswer    an answer that is not this service's: a proxy's page, another version's fields
└── ServiceRefused      the service says why; 4xx, and the root of the ones below
    ├── Unauthorized    401 or 403: no API key, or a wrong one
    ├── Overloaded      429: still busy after all attempts
    └── ServerFailed    5xx
        └── Unavailable 503: starting, shutting down, still so after all attempts
"""


class ClientError(Exception):
    """Root of all errors of the client."""


class Unreachable(ClientError):
    """No connection, or it broke."""


class TimedOut(ClientError):
    """Connected, but no answer in time."""


class UnexpectedAnswer(ClientError):
    """An answer that is not this service's."""


class ServiceRefused(ClientError):
    """The service refuses, and says why.

    Args:
        status: HTTP's.
        code: Stable, for programs: ``not_an_image``; ``http_502`` where the answer is not the service's own.
        detail: A sentence, for people.
        request_id: What the service's log calls the request, where it says so.
        retry_after: Seconds after which to come again, where it says so.

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
    """Still busy after all attempts."""


class ServerFailed(ServiceRefused):
    """The service's own fault, or that of a proxy before it."""


class Unavailable(ServerFailed):
    """Starting or shutting down, still so after all attempts."""
