"""Multipart forms, read from a request into memory."""

import codecs
from typing import TYPE_CHECKING, NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


class InvalidFormError(Exception):
    """The body is not a form, or not one within the limits; the message says why."""


class TooManyFilesError(InvalidFormError):
    """The form has more files than the limit."""


class Part(NamedTuple):
    """One field of a form. ``filename`` is ``None`` if it is text, which is not kept."""

    name: str
    filename: str | None
    data: bytes


async def read_form(request: Request, *, max_files: int, max_fields: int) -> list[Part]:
    """Return the parts of a form, in order; a part without its end is left out.

    The request's stream bounds the size of all parts, and the parser that of each part's header.

    Args:
        request: Its content type is that of a multipart form.
        max_files: The limit of parts with a file name.
        max_fields: The limit of other parts.

    Raises:
        InvalidFormError: The form cannot be parsed, or has too many fields.
        TooManyFilesError: It has too many files.

    """
    _, parameters = parse_options_header(request.headers["content-type"])
    if b"boundary" not in parameters:
        raise InvalidFormError("Missing boundary in multipart.")
    reader = _Reader(_charset(parameters), max_files, max_fields)
    try:
        parser = MultipartParser(parameters[b"boundary"], reader.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise InvalidFormError("Invalid multipart data.") from error
    return reader.parts


def _charset(parameters: dict[bytes, bytes]) -> str:
    try:
        return codecs.lookup(parameters.get(b"charset", b"utf-8").decode("latin-1")).name
    except LookupError:
        return "latin-1"


class _Reader:
    """Collects the parts that a parser finds."""

    def __init__(self, charset: str, max_files: int, max_fields: int) -> None:
        self.parts: list[Part] = []
        self._charset = charset
        self._files_left, self._fields_left = max_files, max_fields
        self._max_files, self._max_fields = max_files, max_fields
        self._begin()

    def callbacks(self) -> "MultipartCallbacks":
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._field = self._value = self._disposition = b""
        self._name = ""
        self._filename: str | None = None
        self._pieces: list[bytes] = []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise InvalidFormError('The Content-Disposition header field "name" must be provided.')
        self._name = self._decoded(options[b"name"])
        if b"filename" in options:
            self._filename = self._decoded(options[b"filename"])
            self._files_left -= 1
        else:
            self._fields_left -= 1
        if self._files_left < 0:
            raise TooManyFilesError(f"Too many files. Maximum number of files is {self._max_files}.")
        if self._fields_left < 0:
            raise InvalidFormError(f"Too many fields. Maximum number of fields is {self._max_fields}.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is not None:
            self._pieces.append(data[start:end])

    def _end(self) -> None:
        self.parts.append(Part(self._name, self._filename, b"".join(self._pieces)))

    def _decoded(self, name: bytes) -> str:
        try:
            return name.decode(self._charset)
        except (UnicodeError, LookupError):
            return name.decode("latin-1")
