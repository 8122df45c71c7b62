"""Validation errors of pydantic, formatted as one line without the input."""

from pydantic import ValidationError


def describe(error: ValidationError) -> str:
    """Return all errors in one line: ``key: message; key: message``."""
    return "; ".join(_messages(error))


def describe_first(error: ValidationError) -> str:
    """Return the first error: ``key: message``."""
    return _messages(error)[0]


def _messages(error: ValidationError) -> list[str]:
    findings = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        ": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))))
        for one in findings
    ]
