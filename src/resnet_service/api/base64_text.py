"""Decoding of the base64 in JSON bodies."""

import base64
import binascii


def decode_base64(text: str) -> bytes:
    """Decode standard base64, padded and without line breaks.

    Raises:
        ValueError: The text is anything else.

    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
