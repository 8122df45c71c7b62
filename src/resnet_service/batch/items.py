"""Which image is meant: what identifies it within a batch, however it is stored."""

from typing import NamedTuple


class Image(NamedTuple):
    """One input: the file it is in (a URL, or an absolute path), and in a Parquet file its row, counted from 0.

    ``size`` is the file's in bytes where the listing tells, and no part of the identity.
    """

    source: str
    row: int | None = None
    size: int | None = None

    @property
    def identity(self) -> tuple[str, int | None]:
        """What two runs know the same image by; ``source`` as it can be written in UTF-8."""
        return as_text(self.source), self.row

    @property
    def name(self) -> str:
        """What to call it where nothing else is known."""
        source = as_text(self.source)
        return source if self.row is None else f"{source}#{self.row}"


def as_text(path: str) -> str:
    """Write a path such that it is valid UTF-8: Linux allows any bytes, which Python keeps as lone surrogates."""
    return path.encode("utf-8", "backslashreplace").decode()
