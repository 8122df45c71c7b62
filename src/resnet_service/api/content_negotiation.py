"""Which of the forms that an answer can have, a client prefers."""

from collections.abc import Sequence


def preferred(accept: str, offered: Sequence[str]) -> str:
    """Return the media type of ``offered`` that an ``Accept`` field wants most; the first of equals.

    RFC 9110, section 12.5.1: the most specific range that fits a type gives its weight. Where none fits, the first one
    offered is better than no answer, as the same section allows.
    """
    weights = _weights(accept)

    def weight(media_type: str) -> float:
        ranges = (media_type, media_type.split("/")[0] + "/*", "*/*")
        return next((weights[one] for one in ranges if one in weights), 0.0)

    return max(offered, key=weight)  # of equals, max takes the first


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            weights[media_range] = float(quality)
        except ValueError:
            continue  # what cannot be read is not asked for
    return weights
