"""A request's body to the bytes of one image, from a form or raw; never touching the disk."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from resnet_service.errors import MalformedForm, MissingImage, TooManyImages, UnsupportedMediaType

FIELD = "file"
FIELDS = "files"
_MAX_FIELDS = 8
_MAX_NAME = 255  # characters of a file's name that are repeated in the answer
_HOW = "Send a form with the image in the field 'file' (curl -F file=@cat.jpg), or the bytes themselves as image/*."

_HOW_SEVERAL = f"Send a form with the images in the field {FIELDS!r} (curl -F files=@cat.jpg -F files=@dog.jpg)."


class NamedImage(NamedTuple):
    """One of several images: what the client calls it, and its encoded bytes."""

    name: str
    data: bytes


async def read_image(request: Request, max_bytes: int) -> bytes:
    """Return the image's encoded bytes.

    Args:
        request: Multipart with a file in the field ``file``, or the raw bytes as ``image/*``,
            ``application/octet-stream`` or without a content type.
        max_bytes: The limit that the body is already held to; parts up to it stay in memory.

    Raises:
        MissingImage: An empty body, or a form without that field.
        MalformedForm: A multipart body that cannot be parsed.
        UnsupportedMediaType: Any other content type.
        BodyTooLarge: From the stream.

    """
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        data = await _from_form(request, max_bytes)
    elif media_type in ("", "application/octet-stream") or media_type.startswith("image/"):
        data = await request.body()
    else:
        raise UnsupportedMediaType(f"A body of type {media_type[:100]} is not read here. {_HOW}")
    if not data:
        raise MissingImage(f"The request carries no image. {_HOW}")
    return data


async def read_images(request: Request, max_bytes: int, max_images: int) -> list[NamedImage]:
    """Return several images' encoded bytes, in the order of the form.

    Args:
        request: Multipart with one file or more in the field ``files``.
        max_bytes: The limit that the body is already held to; parts up to it stay in memory.
        max_images: As many files may there be.

    Raises:
        MissingImage: A form without that field.
        MalformedForm: A multipart body that cannot be parsed, or that has text in that field.
        TooManyImages: More files.
        UnsupportedMediaType: Any other content type.
        BodyTooLarge: From the stream.

    """
    media_type = _media_type(request)
    if media_type != "multipart/form-data":
        raise UnsupportedMediaType(f"A body of type {media_type[:100] or 'unknown'} is not read here. {_HOW_SEVERAL}")
    form = await _parse(request, max_bytes, max_images, _HOW_SEVERAL)
    try:
        parts = form.getlist(FIELDS)
        if not parts:
            raise MissingImage(f"The form has no file in the field {FIELDS!r}. {_HOW_SEVERAL}")
        files = [part for part in parts if isinstance(part, UploadFile)]
        if len(files) < len(parts):
            raise MalformedForm(f"The field {FIELDS!r} has text where a file should be. {_HOW_SEVERAL}")
        return [NamedImage((part.filename or "")[:_MAX_NAME], await part.read()) for part in files]
    finally:
        await form.close()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def _from_form(request: Request, max_bytes: int) -> bytes:
    form = await _parse(request, max_bytes, 1, _HOW)
    try:
        part = form.get(FIELD)
        if not isinstance(part, UploadFile):
            raise MissingImage(f"The form has no file in the field {FIELD!r}. {_HOW}")
        return await part.read()
    finally:
        await form.close()


async def _parse(request: Request, max_bytes: int, max_files: int, how: str) -> FormData:
    parser = MultiPartParser(
        request.headers, _stream(request), max_files=max_files, max_fields=_MAX_FIELDS, max_part_size=max_bytes
    )
    # By default, files above 1 MB go to disk; ours are bounded, and a read-only container has no disk to go to.
    parser.spool_max_size = max_bytes + 1
    try:
        return await parser.parse()
    except MultiPartException as error:
        if max_files > 1 and error.message.startswith("Too many files"):
            raise TooManyImages(
                f"The form has more than {max_files} images, the limit; send them in several requests."
            ) from error
        raise MalformedForm(f"The form cannot be read: {error.message} {how}") from error


async def _stream(request: Request) -> AsyncGenerator[bytes]:
    async for chunk in request.stream():
        yield chunk
