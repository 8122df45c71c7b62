"""The identity of an image within a batch."""

from typing import NamedTuple


class BatchImage(NamedTuple):
    """One input: its file (a URL or an absolute path) and, in a Parquet file, its row, counted from 0.

    ``size`` is the file's bytes, if the listing has them; it is not part of the identity.
    """

    source: str
    row: int | None = None
    size: int | None = None

    @property
    def identity(self) -> tuple[str, int | None]:
        """Source and row, the same in every run; ``source`` as valid UTF-8."""
        return as_text(self.source), self.row

    @property
    def name(self) -> str:
        """The name to show: source, and row if there is one."""
        source = as_text(self.source)
        return source if self.row is None else f"{source}#{self.row}"


def as_text(path: str) -> str:
    """Return a path as valid UTF-8; Linux allows any bytes, which Python keeps as lone surrogates."""
    return path.encode("utf-8", "backslashreplace").decode()
