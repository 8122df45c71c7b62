"""Settings as command-line flags: declared in ``settings``, turned into options here, so nothing is said twice."""

import inspect
from collections.abc import Callable
from typing import Any

import typer

from resnet_service.settings import ENV_PREFIX, Settings


def as_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function of ``**flags`` one option for each setting; a flag that is not used arrives as ``None``."""
    parameters = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"default {field.default}; "
        text = f"{field.description} ({default}{ENV_PREFIX}{name.upper()})"
        option = typer.Option(None, help=text, show_default=False)
        kind: Any = field.annotation | None  # type: ignore[operator]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind))
    # Typer reads both.
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def settings_table() -> str:
    """Return the settings as a Markdown table, as the README shows it."""
    rows = ["| flag of `serve` | variable | default | what it does |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        flag = f"--{name.replace('_', '-')}"
        rows.append(f"| `{flag}` | `{ENV_PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)
