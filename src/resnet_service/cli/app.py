"""The Typer app: root options and all commands. Each command imports heavy modules itself, when it runs."""

from typing import Annotated

import typer

from resnet_service import __version__
from resnet_service.cli.batch import classify_batch
from resnet_service.cli.classify import classify
from resnet_service.cli.console import out
from resnet_service.cli.evaluate import evaluate
from resnet_service.cli.models import convert, export, inspect, pull
from resnet_service.cli.serve import serve

app = typer.Typer(
    help="Serve an image classifier from one validated model file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(serve)
app.command()(classify)
app.command(name="classify-batch")(classify_batch)
app.command()(inspect)
app.command()(pull)
app.command()(export)
app.command(name="pack", hidden=True)(export)  # the name that 1.0 published
app.command()(convert)
app.command()(evaluate)


def main() -> None:
    """Run the command line."""
    app()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out().print(__version__)
        raise typer.Exit
