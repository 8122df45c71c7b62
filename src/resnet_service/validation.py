"""Validation errors of pydantic, formatted as one line."""

from pydantic import ValidationError


def describe(error: ValidationError) -> str:
    """Return all errors in one line: ``key: message; key: message``."""
    messages = (
        ": ".join(filter(None, (".".join(str(part) for part in one["loc"]), one["msg"].removeprefix("Value error, "))))
        for one in error.errors(include_url=False, include_input=False)
    )
    return "; ".join(messages)
