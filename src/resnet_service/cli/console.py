"""Output of the command line: consoles, one-line errors, progress bars, tables."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import typer

from resnet_service.errors import RuntimeUnavailable, ServiceError, install_hint
from resnet_service.types import Progress

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.text import Text

# Which extra of this package installs each optional package, by import name.
_EXTRAS = {
    "torch": "torch",
    "torchvision": "torch",
    "timm": "torch",
    "onnxscript": "torch",
    "onnxruntime": "quantize",
    "nncf": "quantize",
    "huggingface_hub": "pull",
    "matplotlib": "plot",
    "pyarrow": "batch",
    "fsspec": "batch",
    "ray": "ray",
}


@functools.cache
def out() -> "Console":
    """Return the console for results. ``serve`` prints none, and importing rich is a twentieth of its start-up."""
    from rich.console import Console

    return Console(highlight=False)


@functools.cache
def err() -> "Console":
    """Return the console for errors, messages and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def message(text: str) -> None:
    """Print one line on stderr."""
    err().print(plain(text))


def print_error(text: str) -> None:
    """Print one line on stderr that begins with "error:"."""
    from rich.text import Text

    err().print(Text.assemble(("error:", "bold red"), " ", plain(text)))


def plain(text: str) -> "Text":
    """Return ``text`` as it is printed: without markup, and with escapes for what a terminal would obey.

    Names in files are untrusted: they may hold control sequences, which move the cursor or set the window's title.
    """
    from rich.text import Text

    harmless = {"\n", "\u00a0", "\u3000"}  # line breaks of our own, and the spaces of French and Chinese
    return Text(
        "".join(
            character
            if character.isprintable() or character in harmless
            else character.encode("unicode_escape").decode()
            for character in text
        )
    )


@contextmanager
def one_line_errors(about: str = "") -> Iterator[None]:
    """Turn a ``ServiceError`` into one line on stderr, prefixed with ``about``, and exit code 1."""
    try:
        with optional_packages():
            yield
    except ServiceError as error:
        print_error(f"{about}{error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error


@contextmanager
def optional_packages() -> Iterator[None]:
    """Turn the failed import of an optional package into an error that names the extra to install.

    Raises:
        RuntimeUnavailable: An optional package is not installed.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "")
        if extra is None:
            raise
        raise RuntimeUnavailable(
            f"This command needs the package {error.name}, which is not installed. {install_hint(extra)}"
        ) from error


@contextmanager
def progress_bar(unit: Literal["images", "bytes"]) -> Iterator[Progress]:
    """Show a progress bar on stderr from the first update on, and remove it at the end."""
    from rich import progress

    amount = (
        (progress.DownloadColumn(), progress.TransferSpeedColumn())
        if unit == "bytes"
        else (progress.MofNCompleteColumn(), progress.TextColumn("{task.fields[speed]}"))
    )
    columns = progress.BarColumn(), *amount, progress.TimeRemainingColumn()
    bars = progress.Progress(*columns, console=err(), transient=True)
    bar = bars.add_task("", total=None, speed="")

    def update(done: int, total: int | None, speed: str = "") -> None:
        bars.start()  # does nothing the second time
        bars.update(bar, completed=done, total=total, speed=speed)

    try:
        yield update
    finally:
        if bars.live.is_started:
            bars.stop()


def print_rows(rows: Iterable[tuple[str, str]], justify: "JustifyMethod" = "left") -> None:
    """Print a table of names and values on stdout."""
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify=justify, overflow="fold")
    for name, value in rows:
        table.add_row(plain(name), plain(value))
    out().print(table)
