"""What pydantic finds wrong, in one line."""

from pydantic import ValidationError


def describe(error: ValidationError) -> str:
    """Return the findings in one line: ``key: what is wrong; key: what is wrong``."""
    findings = (
        ": ".join(filter(None, (".".join(str(part) for part in finding["loc"]), finding["msg"])))
        for finding in error.errors(include_url=False, include_input=False)
    )
    return "; ".join(findings)
