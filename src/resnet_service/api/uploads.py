"""Reading images from a request's body, a form or raw bytes, in memory alone."""

from typing import NamedTuple

from starlette.requests import Request

from resnet_service.api.content_negotiation import BINARY, FORM, media_type_of
from resnet_service.api.forms import InvalidFormError, Part, TooManyFilesError, read_form
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


async def read_image(request: Request) -> bytes:
    """Return the image's encoded bytes.

    Args:
        request: Multipart with a file in the field ``file``, or the raw bytes as ``image/*``,
            ``application/octet-stream`` or without a content type.

    Raises:
        MissingImage: The body is empty, or the form has no such field.
        MalformedForm: The multipart body cannot be parsed.
        UnsupportedMediaType: The content type is another one.
        BodyTooLarge: Raised by the stream.

    """
    media_type = media_type_of(request)
    if media_type == FORM:
        data = await _from_form(request)
    elif media_type in ("", BINARY) or media_type.startswith("image/"):
        data = await read_body(request)
    else:
        raise UnsupportedMediaType(f"The content type {media_type[:100]} is not accepted. {HOW_TO_SEND}")
    if not data:
        raise MissingImage(f"The request contains no image. {HOW_TO_SEND}")
    return data


async def read_body(request: Request) -> bytes:
    """Return the whole body; if it arrived at once, without a copy.

    Starlette's ``Request.body`` copies it, since each of its streams ends with an empty piece.
    """
    return b"".join([piece async for piece in request.stream() if piece])


async def read_images(request: Request, max_images: int) -> list[NamedImage]:
    """Return several images' encoded bytes, in the order of the form.

    Args:
        request: Multipart with one or more files in the field ``files``.
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
    try:
        form = await _parse(request, max_images, _HOW_TO_SEND_SEVERAL)
    except TooManyFilesError as error:
        raise TooManyImages("form", max_images) from error
    images: list[NamedImage] = []
    for part in form:
        if part.name != FIELDS:
            continue
        if part.filename is None:
            raise MalformedForm(f"The field {FIELDS!r} contains text instead of a file. {_HOW_TO_SEND_SEVERAL}")
        images.append(NamedImage(part.filename[:_MAX_NAME], part.data))
    if not images:
        raise MissingImage(f"The form has no file in the field {FIELDS!r}. {_HOW_TO_SEND_SEVERAL}")
    return images


async def _from_form(request: Request) -> bytes:
    try:
        form = await _parse(request, 1, HOW_TO_SEND)
    except TooManyFilesError as error:
        raise _malformed(error, HOW_TO_SEND) from error
    part = next((part for part in reversed(form) if part.name == FIELD), None)
    if part is None or part.filename is None:
        raise MissingImage(f"The form has no file in the field {FIELD!r}. {HOW_TO_SEND}")
    return part.data


async def _parse(request: Request, max_files: int, how: str) -> list[Part]:
    try:
        return await read_form(request, max_files=max_files, max_fields=_MAX_FIELDS)
    except TooManyFilesError:
        raise
    except InvalidFormError as error:
        raise _malformed(error, how) from error


def _malformed(error: InvalidFormError, how: str) -> MalformedForm:
    return MalformedForm(f"The form cannot be parsed: {error} {how}")
