"""The error of an image file that exceeds a structural limit of its format."""

from resnet_service.errors import BrokenImage


def too_many(what: str, limit: int) -> BrokenImage:
    """Return the error of a file that has more than ``limit`` of something."""
    return BrokenImage(f"The image file has more than {limit:,} {what}; no camera or program writes such files.")
