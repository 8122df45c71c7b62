"""Options of the command line: those that several commands share, and the settings as flags of ``serve``."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from resnet_service.defaults import DEFAULT_TOP_K
from resnet_service.settings import ENV_PREFIX, SECRETS, Settings
from resnet_service.types import Fidelity, RuntimeName


def _like_serve(setting: str) -> Any:
    """Return an option with the help text of a setting."""
    return typer.Option(help=Settings.model_fields[setting].description)


ModelFile = Annotated[Path, typer.Argument(help="Model file: a checkpoint or an exported model.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Model file; by default the newest in ./checkpoints.")]
Arch = Annotated[str | None, typer.Option(help="Architecture, if the file does not name it.")]
Labels = Annotated[Path | None, _like_serve("labels")]
Runtime = Annotated[RuntimeName, _like_serve("runtime")]
Decode = Annotated[Fidelity, _like_serve("decode")]
TopK = Annotated[int | None, typer.Option(help=f"Number of classes to return; default {DEFAULT_TOP_K}.")]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="Images like those that the model will classify: a folder of images, or a data set as for evaluate."
    ),
]
MaxLoss = Annotated[
    float, typer.Option(help="Percentage points of top-1 accuracy that the exported model may lose on held-out images.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def as_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function of ``**flags`` one option for each setting; an unused flag arrives as ``None``."""
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
