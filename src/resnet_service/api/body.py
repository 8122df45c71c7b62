"""A request's body to the bytes of one picture, from a form or raw; never touching the disk."""

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from resnet_service.errors import MalformedForm, NoFile, UnsupportedMediaType

FIELD = "file"
_MAX_FIELDS = 8
_HOW = "Send a form with the picture in the field 'file' (curl -F file=@cat.jpg), or the bytes themselves as image/*."


async def read_picture(request: Request, max_bytes: int) -> bytes:
    """Return the picture's encoded bytes.

    Args:
        request: Multipart with a file in the field ``file``, or the raw bytes as ``image/*``,
            ``application/octet-stream`` or without a content type.
        max_bytes: The limit that the body is already held to; parts up to it stay in memory.

    Raises:
        NoFile: An empty body, or a form without that field.
        MalformedForm: A multipart body that cannot be parsed.
        UnsupportedMediaType: Any other content type.
        BodyTooLarge: From the stream.

    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        data = await _from_form(request, max_bytes)
    elif media_type in ("", "application/octet-stream") or media_type.startswith("image/"):
        data = await request.body()
    else:
        raise UnsupportedMediaType(f"A body of type {media_type[:100]} is not read here. {_HOW}")
    if not data:
        raise NoFile(f"The request carries no picture. {_HOW}")
    return data


async def _from_form(request: Request, max_bytes: int) -> bytes:
    parser = MultiPartParser(
        request.headers, _stream(request), max_files=1, max_fields=_MAX_FIELDS, max_part_size=max_bytes
    )
    # By default, files above 1 MB go to disk; ours are bounded, and a read-only container has no disk to go to.
    parser.spool_max_size = max_bytes + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise MalformedForm(f"The form cannot be read: {error.message} {_HOW}") from error
    try:
        part = form.get(FIELD)
        if not isinstance(part, UploadFile):
            raise NoFile(f"The form has no file in the field {FIELD!r}. {_HOW}")
        return await part.read()
    finally:
        await form.close()


async def _stream(request: Request) -> AsyncGenerator[bytes]:
    async for chunk in request.stream():
        yield chunk
