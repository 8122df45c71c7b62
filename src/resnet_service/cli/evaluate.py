"""The command ``evaluate``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnet_service.cli.console import message, one_line_errors, print_rows, progress_bar
from resnet_service.cli.flags import AsJson, Labels, ModelFile, Runtime
from resnet_service.errors import FileNotWritten
from resnet_service.types import EXPORTED_SUFFIX

if TYPE_CHECKING:
    from resnet_service.evaluation.evaluate import Evaluation
    from resnet_service.models.metadata import EvaluationRecord


def evaluate(
    checkpoint: ModelFile,
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Folder with one folder per class, .csv of path,label, or folder of Fashion-MNIST's files."
        ),
    ],
    runtime: Runtime = "auto",
    labels: Labels = None,
    workers: Annotated[int | None, typer.Option(help="Images processed at once; by default one per CPU.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for confusion matrix and reliability diagram.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the result into the model's metadata, which /metadata shows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model's accuracy on labelled images, through the pipeline that serves."""
    with one_line_errors():
        from resnet_service.evaluation.datasets import open_dataset
        from resnet_service.evaluation.evaluate import evaluate as evaluate_on
        from resnet_service.inference.classifier import Classifier, ClassifierConfig
        from resnet_service.models.file_kinds import check_model_kind
        from resnet_service.system.cpus import available_cpus

        check_model_kind(checkpoint)
        # Imported first: a missing package is reported before minutes of evaluation.
        if plot:
            from resnet_service.evaluation import plots

            if plot.exists() and not plot.is_dir():
                raise FileNotWritten(f"{plot} is not a folder. Name a folder with --plot.")
        recorder = _recorder(checkpoint) if record else None
        workers = workers or available_cpus()
        classifier = Classifier.open(checkpoint, ClassifierConfig(runtime=runtime, label_file=labels, workers=workers))
        classifier.warm_up()
        opened = open_dataset(dataset, classifier.model.labels)
        total = len(opened.samples)
        with progress_bar("images") as progress:
            evaluation = evaluate_on(classifier, opened, workers=workers, progress=lambda done: progress(done, total))
        if plot:
            for path in plots.draw(evaluation, plot):
                message(f"Wrote {path}")
        if recorder:
            recorder(checkpoint, evaluation.record())
            message(f"Recorded in {checkpoint}")
    if as_json:
        print(json.dumps(evaluation.as_dict()))
    else:
        _print_evaluation(evaluation)


def _recorder(model: Path) -> "Callable[[Path, EvaluationRecord], None]":
    """Import and return the function that records an evaluation in a file of this kind."""
    if model.suffix == EXPORTED_SUFFIX:
        from resnet_service.export.onnx_metadata import record_evaluation as record_in_exported

        return record_in_exported
    from resnet_service.models.checkpoint.weights import record_evaluation as record_in_checkpoint

    return record_in_checkpoint


def _print_evaluation(evaluation: "Evaluation") -> None:
    rows = [
        ("images", f"{len(evaluation.truth):,}"),
        ("top-1", f"{evaluation.top1:.2f} %"),
        ("top-5", f"{evaluation.top5:.2f} %"),
        ("calibration error", f"{evaluation.calibration_error:.4f}"),
    ]
    rows += [(f"latency {name}", f"{milliseconds:.1f} ms") for name, milliseconds in evaluation.latency_ms.items()]
    rows += [(f"top-1 of {name}", f"{share:.2f} %") for name, share in evaluation.per_class.items()]
    print_rows(rows, justify="right")
    for name, reason in evaluation.unreadable:
        message(f"unreadable: {name}: {reason}")
