"""Settings as command-line flags: declared in ``settings``, turned into options here, so nothing is said twice."""

import inspect
from collections.abc import Callable
from typing import Any, get_origin

import typer

from resnet_service.settings import ENV_PREFIX, SECRETS, Settings


def as_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function of ``**flags`` one option for each setting; a flag that is not used arrives as ``None``."""
    parameters = []
    for name, field in Settings.model_fields.items():
        if name in SECRETS:
            continue
        default = "" if field.default in (None, ()) else f"default {field.default}; "
        text = f"{field.description} ({default}{ENV_PREFIX}{name.upper()})"
        option = typer.Option(None, help=text, show_default=False)
        # Several values are separated by commas, as in the variable.
        kind: Any = str | None if get_origin(field.annotation) is tuple else field.annotation | None  # type: ignore[operator]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind))
    # Typer reads both.
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def settings_table() -> str:
    """Return the settings as a Markdown table, as ``docs/settings.md`` shows it."""
    rows = ["| flag of `serve` | variable | default | what it does |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        flag = "" if name in SECRETS else f"`--{name.replace('_', '-')}`"
        rows.append(f"| {flag} | `{ENV_PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)
