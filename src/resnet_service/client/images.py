"""The kinds of image that the client accepts, and their bytes; Pillow's images are recognised without its import."""

import io
import os
from typing import IO, Any, Protocol, runtime_checkable

# Modes that PNG supports; others, such as CMYK, become RGB.
_PNG_MODES = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}


@runtime_checkable
class PillowImage(Protocol):
    """The part of ``PIL.Image.Image`` that is used here."""

    @property
    def mode(self) -> str:
        """The format of the pixels."""
        ...

    def convert(self, mode: str) -> "PillowImage":
        """Return it in another mode."""
        ...

    def save(self, fp: Any, format: str) -> None:  # noqa: A002 - Pillow's parameter name
        """Write it to a file object."""
        ...


# Encoded bytes, a path, a file opened in binary mode, or a Pillow image.
ImageSource = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | PillowImage


def image_bytes(image: ImageSource) -> bytes:
    """Return the encoded image; a Pillow image becomes PNG, which is lossless.

    Files are read before the first attempt, so that each retry sends the whole file.

    Raises:
        OSError: The file cannot be read.
        TypeError: It is none of the types of ``ImageSource``.

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
    """Return the file's name if it has one, else a numbered name; ``Failure.filename`` repeats it."""
    name = image if isinstance(image, (str, os.PathLike)) else getattr(image, "name", None)
    return os.path.basename(name) if isinstance(name, (str, os.PathLike)) else f"image-{number}"
