"""Reading images from a request's body, a form or raw bytes, in memory alone."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from resnet_service.api.content_negotiation import BINARY, FORM, media_type_of
from resnet_service.errors import MalformedForm, MissingImage, TooManyImages, UnsupportedMediaType

FIELD = "file"
FIELDS = "files"
_MAX_FIELDS = 8
_MAX_NAME = 255  # characters of a file's name that the response repeats
HOW_TO_SEND = (
    f"Send a form with the image in the field {FIELD!r} (curl -F {FIELD}=@cat.jpg), or the bytes themselves as image/*."
)
_HOW_TO_SEND_SEVERAL = (
    f"Send a form with the images in the field {FIELDS!r} (curl -F {FIELDS}=@cat.jpg -F {FIELDS}=@dog.jpg)."
)


class NamedImage(NamedTuple):
    """One of several images: its name in the form, and its encoded bytes."""

    name: str
    data: bytes


async def read_image(request: Request, max_bytes: int) -> bytes:
    """Return the image's encoded bytes.

    Args:
        request: Multipart with a file in the field ``file``, or the raw bytes as ``image/*``,
            ``application/octet-stream`` or without a content type.
        max_bytes: The limit that the middleware enforces; parts up to this size stay in memory.

    Raises:
        MissingImage: The body is empty, or the form has no such field.
        MalformedForm: The multipart body cannot be parsed.
        UnsupportedMediaType: The content type is another one.
        BodyTooLarge: Raised by the stream.

    """
    media_type = media_type_of(request)
    if media_type == FORM:
        data = await _from_form(request, max_bytes)
    elif media_type in ("", BINARY) or media_type.startswith("image/"):
        data = await request.body()
    else:
        raise UnsupportedMediaType(f"The content type {media_type[:100]} is not accepted. {HOW_TO_SEND}")
    if not data:
        raise MissingImage(f"The request contains no image. {HOW_TO_SEND}")
    return data


async def read_images(request: Request, max_bytes: int, max_images: int) -> list[NamedImage]:
    """Return several images' encoded bytes, in the order of the form.

    Args:
        request: Multipart with one or more files in the field ``files``.
        max_bytes: The limit that the middleware enforces; parts up to this size stay in memory.
        max_images: The limit of files.

    Raises:
        MissingImage: The form has no such field.
        MalformedForm: The multipart body cannot be parsed, or the field contains text.
        TooManyImages: There are more files.
        UnsupportedMediaType: The content type is another one.
        BodyTooLarge: Raised by the stream.

    """
    media_type = media_type_of(request)
    if media_type != FORM:
        raise UnsupportedMediaType(
            f"The content type {media_type[:100] or 'unknown'} is not accepted. {_HOW_TO_SEND_SEVERAL}"
        )
    form = await _parse(request, max_bytes, max_images, _HOW_TO_SEND_SEVERAL)
    try:
        parts = form.getlist(FIELDS)
        if not parts:
            raise MissingImage(f"The form has no file in the field {FIELDS!r}. {_HOW_TO_SEND_SEVERAL}")
        files = [part for part in parts if isinstance(part, UploadFile)]
        if len(files) < len(parts):
            raise MalformedForm(f"The field {FIELDS!r} contains text instead of a file. {_HOW_TO_SEND_SEVERAL}")
        return [NamedImage((part.filename or "")[:_MAX_NAME], await part.read()) for part in files]
    finally:
        await form.close()


async def _from_form(request: Request, max_bytes: int) -> bytes:
    form = await _parse(request, max_bytes, 1, HOW_TO_SEND)
    try:
        part = form.get(FIELD)
        if not isinstance(part, UploadFile):
            raise MissingImage(f"The form has no file in the field {FIELD!r}. {HOW_TO_SEND}")
        return await part.read()
    finally:
        await form.close()


async def _parse(request: Request, max_bytes: int, max_files: int, how: str) -> FormData:
    parser = MultiPartParser(
        request.headers, _stream(request), max_files=max_files, max_fields=_MAX_FIELDS, max_part_size=max_bytes
    )
    # By default, files above 1 MB go to disk; ours are bounded, and a container's file system may be read-only.
    parser.spool_max_size = max_bytes + 1
    try:
        return await parser.parse()
    except MultiPartException as error:
        if max_files > 1 and error.message.startswith("Too many files"):
            raise TooManyImages("form", max_files) from error
        raise MalformedForm(f"The form cannot be parsed: {error.message} {how}") from error


async def _stream(request: Request) -> AsyncGenerator[bytes]:
    async for chunk in request.stream():
        yield chunk
