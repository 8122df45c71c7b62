"""Reading images from a request's body, a form or raw bytes, in memory alone."""

import re
from collections.abc import Collection
from typing import NamedTuple

from starlette.requests import Request

from resnet_service.api.content_negotiation import BINARY, FORM, JSON, media_type_of
from resnet_service.api.forms import Form, read_form
from resnet_service.api.mistaken_content import mistaken_content, short_text
from resnet_service.errors import MalformedForm, MissingImage, NotAnImage, TooManyImages, UnsupportedMediaType

FIELD = "file"
FIELDS = "files"
_ARRAY = f"{FIELDS}[]"  # as axios, jQuery and PHP name each element of a list
_MAX_FIELDS = 8
_MAX_NAME = 255  # characters of a file's name that the response repeats
# Of what a client sent instead, an error repeats this much.
_MAX_SHOWN, _MAX_SHOWN_FIELDS = 40, 5
HOW_TO_SEND = (
    f"Send a form with the image in the field {FIELD!r} (curl -F {FIELD}=@cat.jpg), or the bytes themselves as image/*."
)
_HOW_TO_SEND_SEVERAL = (
    f"Send a form with the images in the field {FIELDS!r} (curl -F {FIELDS}=@cat.jpg -F {FIELDS}=@dog.jpg)."
)
_HOW_TO_SEND_JSON = 'JSON with the image in base64 is for POST /: {"inputs": "…"}.'
# Unless told what they send, curl and Java's HttpURLConnection declare a urlencoded form; files of S3 have the other.
URLENCODED = "application/x-www-form-urlencoded"
_RAW = ("", BINARY, "binary/octet-stream", URLENCODED)
# How a form begins that is encoded so; an image has other bytes in its first ones.
_PRINTABLE = re.compile(rb"[ -~\r\n]{32}|[ -~\r\n]*\Z")


class NamedImage(NamedTuple):
    """One of several images: its name in the form, and its encoded bytes."""

    name: str
    data: bytes


def check_encoding(request: Request) -> None:
    """Check that the body is sent as it is: images are compressed, and a body that inflates could be an attack.

    Raises:
        UnsupportedMediaType: The body has a content encoding.

    """
    encoding = ",".join(request.headers.getlist("content-encoding"))
    if encoding and encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(
            f"The Content-Encoding {encoding[:_MAX_SHOWN]} is not accepted. Send the body without one; images are "
            "compressed already."
        )


async def form_fields(request: Request, names: Collection[str], max_files: int) -> list[tuple[str, str]]:
    """Return the fields of these names, if the body is a form, which is kept for ``read_image`` and ``read_images``.

    They raise the errors of the form, since only they know what a form must have.

    Args:
        request: Its body has not been read.
        names: The names of the fields.
        max_files: The limit of files, whichever the route.

    Raises:
        BodyTooLarge: Raised by the stream.

    """
    if media_type_of(request) != FORM:
        return []
    form = await read_form(request, file_fields=(FIELD, FIELDS, _ARRAY), max_files=max_files, max_fields=_MAX_FIELDS)
    request.state.form = form
    return [(part.name, part.data.decode(errors="replace")) for part in form.parts if part.name in names]


def forget_form(request: Request) -> None:
    """Let go of the form that ``form_fields`` kept: the server keeps the scope until the connection's next request."""
    request.scope["state"].pop("form", None)


async def read_image(request: Request) -> bytes:
    """Return the image's encoded bytes.

    Args:
        request: Multipart with the image in the field ``file``, with or without a file name, which ``form_fields`` has
            read; or the raw bytes as ``image/*``, as a type that clients declare by default, or without a content type.

    Raises:
        MissingImage: The body is empty, or the form has no such field, or a text in it.
        MalformedForm: The multipart body cannot be parsed.
        NotAnImage: The bytes are of another kind, which clients send by mistake.
        UnsupportedMediaType: The content type is another one.
        BodyTooLarge: Raised by the stream.

    """
    media_type = media_type_of(request)
    if media_type == FORM:
        return _image_of(request.state.form)
    if media_type not in _RAW and not media_type.startswith("image/"):
        how = f"{HOW_TO_SEND} {_HOW_TO_SEND_JSON}" if media_type == JSON else HOW_TO_SEND
        raise UnsupportedMediaType(f"The content type {media_type[:100]} is not accepted. {how}")
    data = await read_body(request)
    if not data:
        raise MissingImage(f"The request contains no image. {HOW_TO_SEND}")
    check_content(data)
    if media_type == URLENCODED and _PRINTABLE.match(data):
        raise UnsupportedMediaType(
            f"The content type {URLENCODED} is accepted for the bytes of an image only, and this is text. {HOW_TO_SEND}"
        )
    if (text := short_text(data)) is not None:
        raise NotAnImage(
            f"The body is the text {_shown(text)}, not an image. With curl, put an @ before the name of a file: "
            "--data-binary @cat.jpg."
        )
    return data


async def read_body(request: Request) -> bytes:
    """Return the whole body; if it arrived at once, without a copy.

    Starlette's ``Request.body`` copies it, since each of its streams ends with an empty piece.
    """
    return b"".join([piece async for piece in request.stream() if piece])


async def read_images(request: Request, max_images: int) -> list[NamedImage]:
    """Return several images' encoded bytes, in the order of the form.

    Args:
        request: Multipart with one or more images in the field ``files`` or ``files[]``, with or without file names,
            which ``form_fields`` has read.
        max_images: The limit of files, as for ``form_fields``.

    Raises:
        MissingImage: The form has no such field.
        MalformedForm: The multipart body cannot be parsed, or the field contains text.
        TooManyImages: There are more files.
        UnsupportedMediaType: The content type is another one.

    """
    media_type = media_type_of(request)
    if media_type != FORM:
        raise UnsupportedMediaType(
            f"The content type {media_type[:100] or 'unknown'} is not accepted. {_HOW_TO_SEND_SEVERAL}"
        )
    form: Form = request.state.form
    if form.too_many_files:
        raise TooManyImages("form", max_images)
    _check_form(form, _HOW_TO_SEND_SEVERAL)
    images: list[NamedImage] = []
    for part in form.parts:
        if part.name not in (FIELDS, _ARRAY) or (part.filename is None and not part.data):
            continue
        if part.filename is None and (text := short_text(part.data)) is not None:
            raise MalformedForm(f"{_instead_of_file(FIELDS, text)} {_HOW_TO_SEND_SEVERAL}")
        name = f"image-{len(images)}" if part.filename is None else part.filename
        images.append(NamedImage(name[:_MAX_NAME], part.data))
    if not images:
        raise MissingImage(f"{_what_came(form, FIELDS)} {_HOW_TO_SEND_SEVERAL}")
    return images


def check_content(data: bytes) -> None:
    """Check whether these bytes are of a kind that clients send by mistake.

    Raises:
        NotAnImage: They are.

    """
    if (said := mistaken_content(data)) is not None:
        raise NotAnImage(said)


def _image_of(form: Form) -> bytes:
    """Return the image of a form: of the parts named ``file``, one with a file name before others."""
    _check_form(form, HOW_TO_SEND)
    files = [part for part in form.parts if part.filename is not None]
    named = [part for part in form.parts if part.name == FIELD]
    chosen = [part for part in named if part.filename is not None] or [part for part in named if part.data]
    if form.too_many_files or len(files) > 1 or len(chosen) > 1:
        raise _malformed("Too many files. Maximum number of files is 1.", HOW_TO_SEND)
    if not chosen or not chosen[0].data:
        raise MissingImage(f"{_what_came(form, FIELD)} {HOW_TO_SEND}")
    image = chosen[0]
    check_content(image.data)
    if image.filename is None and (text := short_text(image.data)) is not None:
        raise MissingImage(f"{_instead_of_file(FIELD, text)} {HOW_TO_SEND}")
    return image.data


def _check_form(form: Form, how: str) -> None:
    if form.fault is not None:
        raise _malformed(form.fault, how)


def _malformed(fault: str, how: str) -> MalformedForm:
    return MalformedForm(f"The form cannot be parsed: {fault} {how}")


def _what_came(form: Form, field: str) -> str:
    """Return what a form has that has no image in ``field``."""
    if form.unfinished is not None:
        return f"The form ends within its field {_shown(form.unfinished)}: the last boundary is missing."
    names = list(dict.fromkeys(part.name for part in form.parts))
    if field in names:
        return f"The field {field!r} is empty."
    if not names:
        return "The form has no fields."
    shown = ", ".join(map(_shown, names[:_MAX_SHOWN_FIELDS])) + (", …" if len(names) > _MAX_SHOWN_FIELDS else "")
    return f"The form has no file in the field {field!r}; it has {shown}."


def _instead_of_file(field: str, text: str) -> str:
    return (
        f"The field {field!r} contains text instead of a file: {_shown(text)}. With curl, did you mean "
        f"-F {field}=@… instead of -F {field}=…?"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")
