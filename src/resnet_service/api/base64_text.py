"""Decoding of the base64 in JSON bodies."""

import base64
import re

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def decode_base64(text: str) -> bytes:
    """Decode standard base64, padded, possibly with line breaks, or in a data URL.

    Raises:
        ValueError: The text is anything else.

    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        prefix = _DATA_URL.match(text)
    encoded = text[prefix.end() :] if prefix is not None else text
    return base64.b64decode(encoded.encode("ascii").translate(None, b" \t\r\n"), validate=True)
