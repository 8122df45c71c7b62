"""Media types: of a request's body, and of the response that a client prefers."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Header
from starlette.requests import Request

JSON, PNG, BINARY, FORM = "application/json", "image/png", "application/octet-stream", "multipart/form-data"
Accept = Annotated[str, Header(include_in_schema=False)]
# Caches may give a stored response only to clients that prefer the same media type.
VARY = {"Vary": "Accept"}


def media_type_of(request: Request) -> str:
    """Return the media type of a request's body, without parameters, in lower case; empty if there is none."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def preferred_media_type(accept: str, offered: Sequence[str]) -> str:
    """Return the media type of ``offered`` that an ``Accept`` header prefers; of equals, the first.

    RFC 9110, section 12.5.1: the most specific range that matches a type gives its weight. Where none matches, return
    the first type offered rather than fail, as the same section allows.
    """
    weights = _weights(accept)

    def weight(media_type: str) -> float:
        ranges = (media_type, media_type.split("/")[0] + "/*", "*/*")
        return next((weights[media_range] for media_range in ranges if media_range in weights), 0.0)

    return max(offered, key=weight)  # of equals, max takes the first


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            weights[media_range] = float(quality)
        except ValueError:
            continue  # a range with a malformed weight does not count
    return weights
