"""The command ``classify``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnet_service.cli.console import one_line_errors, out, plain
from resnet_service.cli.flags import Arch, AsJson, Checkpoint, Labels, Runtime, TopK
from resnet_service.errors import MissingImage

if TYPE_CHECKING:
    from resnet_service.inference.results import Classification


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    checkpoint: Checkpoint = None,
    runtime: Runtime = "auto",
    arch: Arch = None,
    labels: Labels = None,
    top_k: TopK = None,
    as_json: AsJson = False,
) -> None:
    """Classify image files without a server. A failed image is reported; the others are still classified."""
    with one_line_errors():
        from resnet_service.inference.classifier import Classifier, ClassifierConfig
        from resnet_service.models.discovery import choose_model
        from resnet_service.system.cpus import available_cpus

        classifier = Classifier.open(
            choose_model(checkpoint),
            ClassifierConfig(runtime=runtime, arch=arch, label_file=labels, threads=available_cpus()),
        )
    failed = 0
    for image in images:
        try:
            with one_line_errors(about=f"{image}: "):
                classification = classifier.classify(_read(image), top_k)
        except typer.Exit as ending:
            if ending.exit_code != 1:  # Ctrl-C ends the command, not one image
                raise
            failed += 1
            continue
        if as_json:
            print(json.dumps({"path": str(image), **_as_dict(classification)}))
        else:
            _print_classification(image, classification)
    if failed:
        raise typer.Exit(1)


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise MissingImage(f"The file cannot be read: {error.strerror}.") from error


def _as_dict(classification: "Classification") -> dict[str, Any]:
    return {
        "predictions": [ranked._asdict() for ranked in classification.predictions],
        **classification.image._asdict(),
        "timing_ms": classification.timing_ms._asdict(),
    }


def _print_classification(image: Path, classification: "Classification") -> None:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    out().print(plain(str(image)), soft_wrap=True)  # a table would fold its title to its own width
    table = Table(box=None, show_header=False)
    for ranked in classification.predictions:
        table.add_row(
            f"{ranked.score:6.1%}", ProgressBar(total=1, completed=ranked.score, width=24), plain(ranked.label)
        )
    out().print(table)
