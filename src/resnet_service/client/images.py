"""What a caller may hand in as an image, and its bytes; Pillow's are known by what they can do, not by import."""

import io
import os
from typing import IO, Any, Protocol, runtime_checkable

# What PNG can hold; other modes, CMYK for one, become RGB.
_PNG_MODES = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}


@runtime_checkable
class PillowImage(Protocol):
    """As much of ``PIL.Image.Image`` as is used."""

    @property
    def mode(self) -> str:
        """How pixels are stored."""
        ...

    def convert(self, mode: str) -> "PillowImage":
        """Return it in another mode."""
        ...

    def save(self, fp: Any, format: str) -> None:  # noqa: A002 - Pillow's name for it
        """Write it to a file object."""
        ...


# Encoded bytes, a path, a file opened in binary, or an image of Pillow.
ImageSource = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | PillowImage


def image_bytes(image: ImageSource) -> bytes:
    """Return the encoded image; one of Pillow as PNG, which loses nothing.

    Files are read here, before the first attempt, so that each attempt sends the whole.

    Raises:
        OSError: The file cannot be read.
        TypeError: It is none of these.

    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            return file.read()
    if isinstance(image, PillowImage):
        buffer = io.BytesIO()
        (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, format="PNG")
        return buffer.getvalue()
    data = image.read() if hasattr(image, "read") else None
    if not isinstance(data, bytes):
        raise TypeError("An image is bytes, a path, a file opened in binary, or a PIL.Image.Image.")
    return data


def image_name(image: ImageSource, number: int) -> str:
    """Return the file's name where it has one, as ``BatchAnswer`` repeats it."""
    name = image if isinstance(image, (str, os.PathLike)) else getattr(image, "name", None)
    return os.path.basename(name) if isinstance(name, (str, os.PathLike)) else f"image-{number}"
