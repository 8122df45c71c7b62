"""Multipart forms, read from a request into memory."""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# .NET and others write it beside ``filename``, or instead of it (RFC 8187); the parser leaves it out.
_EXTENDED_FILENAME = re.compile(rb""";[ \t]*filename\*[ \t]*=[ \t]*"?utf-8'[^']*'([^";\s]*)""", re.IGNORECASE)
_ENCODED_BYTE = re.compile(rb"%([0-9A-Fa-f]{2})")


class _InvalidFormError(Exception):
    """The body is not a form, or not one within the limits; the message says why."""


class _TooManyFilesError(Exception):
    """The form has more files than the limit."""


class Part(NamedTuple):
    """One field of a form. ``filename`` is ``None`` if the client sent no name of a file."""

    name: str
    filename: str | None
    data: bytes


class Form(NamedTuple):
    """The parts of a form, in order; of one that is not valid, those before its fault.

    ``fault`` says what is wrong with it. ``unfinished`` is the name of a part without its end.
    """

    parts: list[Part]
    fault: str | None = None
    too_many_files: bool = False
    unfinished: str | None = None


async def read_form(request: Request, *, file_fields: Collection[str], max_files: int, max_fields: int) -> Form:
    """Return the form that is the body.

    The request's stream bounds the size of all parts, and the parser that of each part's header.

    Args:
        request: Its content type is that of a multipart form.
        file_fields: The names of parts that are files, also without a file name.
        max_files: The limit of parts with a file name or one of these names.
        max_fields: The limit of other parts, and of empty ones without a file name.

    """
    _, parameters = parse_options_header(request.headers["content-type"])
    boundary = parameters.get(b"boundary")
    if not boundary:
        return Form(
            [], "Its Content-Type has no boundary. HTTP libraries write one, unless you set the Content-Type yourself."
        )
    reader = _Reader(_charset(parameters), file_fields, max_files, max_fields)
    begin = b""
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        async for chunk in request.stream():
            begin = begin or chunk
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        return Form(reader.parts, _fault(begin, boundary))
    except _InvalidFormError as error:
        return Form(reader.parts, str(error))
    except _TooManyFilesError:
        return Form(reader.parts, too_many_files=True)
    return Form(reader.parts, unfinished=reader.unfinished)


def _fault(begin: bytes, boundary: bytes) -> str:
    """Return why the parser failed, as far as the first bytes of the body show it."""
    first_line = b"--" + boundary
    if begin.startswith(first_line + b"\n"):
        return "Its lines end with LF; they must end with CRLF."
    if len(begin) > len(first_line) and not begin.lstrip(b"\r\n").startswith(first_line):
        return "The body does not begin with the boundary that its Content-Type names."
    return "Invalid multipart data."


def _charset(parameters: dict[bytes, bytes]) -> str:
    # Python keeps each name that it has been asked for, so a client must not choose it.
    return "utf-8" if parameters.get(b"charset", b"utf-8").lower() in (b"utf-8", b"utf8", b"us-ascii") else "latin-1"


class _Reader:
    """Collects the parts that a parser finds."""

    def __init__(self, charset: str, file_fields: Collection[str], max_files: int, max_fields: int) -> None:
        self.parts: list[Part] = []
        self.unfinished: str | None = None
        self._charset = charset
        self._file_fields = file_fields
        self._files_left, self._fields_left = max_files, max_fields
        self._max_fields = max_fields
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
            raise _InvalidFormError('The Content-Disposition header field "name" must be provided.')
        self._name = self.unfinished = self._decoded(options[b"name"])
        if (extended := _EXTENDED_FILENAME.search(self._disposition)) is not None:
            self._filename = self._decoded(_ENCODED_BYTE.sub(lambda byte: bytes.fromhex(byte[1].decode()), extended[1]))
        elif b"filename" in options:
            self._filename = self._decoded(options[b"filename"])

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        part = Part(self._name, self._filename, b"".join(self._pieces))
        self.parts.append(part)
        self.unfinished = None
        if part.filename is not None or (part.data and part.name in self._file_fields):
            self._files_left -= 1
        else:
            self._fields_left -= 1
        if self._files_left < 0:
            raise _TooManyFilesError
        if self._fields_left < 0:
            raise _InvalidFormError(f"Too many fields. Maximum number of fields is {self._max_fields}.")

    def _decoded(self, name: bytes) -> str:
        try:
            return name.decode(self._charset)
        except (UnicodeError, LookupError):
            return name.decode("latin-1")
