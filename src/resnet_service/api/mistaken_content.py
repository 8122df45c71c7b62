"""What was sent as an image and is something else, by its first bytes: what it is, and how to send the image."""

import re

# Bytes in which a kind must show.
_HEAD = 1024
# Characters of a text that may be the name of a file, which the client meant to send.
_LONGEST_NAME = 255
_ONLY_HUB = "POST / takes JSON, with the image in base64"

_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (
        re.compile(rb"--[^\r\n]+\r?\n(?:[^\r\n]+\r?\n)*?content-disposition:", re.IGNORECASE),
        "The body is a form, but its Content-Type says otherwise. Declare multipart/form-data with the form's "
        "boundary, as HTTP libraries do unless you set the Content-Type yourself.",
    ),
    (re.compile(rb"\x1f\x8b"), "This is gzip data, not an image. Send the image uncompressed."),
    (
        re.compile(rb"version https://git-lfs\.github\.com/spec/"),
        "This is a Git LFS pointer, not the image that it stands for. Fetch the image with git lfs pull.",
    ),
    (
        re.compile(rb"<!doctype html|<html", re.IGNORECASE),
        "This is an HTML page, not an image. Servers send such a page in place of a file that they do not have.",
    ),
    (
        re.compile(rb"data:[\w.+-]*(?:/[\w.+-]*)?[;,]", re.IGNORECASE),
        f"This is a data URL, not an image. Send the bytes that it encodes; {_ONLY_HUB} or as a data URL.",
    ),
    (
        # How base64 of JPEG, PNG, GIF, WebP, TIFF, BMP, and of AVIF or HEIC begins.
        re.compile(rb"(?:/9j/|iVBORw|R0lGOD|UklGR|SUkq|TU0A|Qk|AAAA)[A-Za-z0-9+/_=\s-]{20,}\Z"),
        f"This is an image in base64. Send the bytes that it encodes; {_ONLY_HUB}.",
    ),
    (re.compile(rb'\{\s*["}]|\[\s*[\[{"\d-]'), f"This is JSON, not an image. Send the image's bytes; {_ONLY_HUB}."),
    (
        re.compile(rb"\x89PNG(?:\x1a|\n\x1a|\r\r\n)"),
        "This is a PNG image whose line breaks were changed, as if it were text. Send its bytes as they are; with "
        "curl, use -F or --data-binary instead of -d.",
    ),
    (
        # Bytes that are not UTF-8 became the replacement character, or Latin-1 became UTF-8.
        re.compile(rb"\xef\xbf\xbd|\xc3\xbf\xc3\x98\xc3\xbf|\xc2\x89PNG"),
        "These are the bytes of an image that a program took for text, and changed. Read the file as bytes.",
    ),
)


def mistaken_content(data: bytes) -> str | None:
    """Return what ``data`` is instead of an image, and what to do; ``None`` if it may be an image.

    The decoder names those other kinds that are files: PDF documents, for example.
    """
    head = data[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    return next((said for pattern, said in _KINDS if pattern.match(head)), None)


def short_text(data: bytes) -> str | None:
    """Return the line of text that ``data`` is: the name of a file, mostly, that was sent instead of the file."""
    # The decoder names XML, SVG and PDF.
    if len(data) > _LONGEST_NAME or data.startswith((b"<", b"%PDF")):
        return None
    try:
        text = data.decode().strip("\r\n\t ")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
