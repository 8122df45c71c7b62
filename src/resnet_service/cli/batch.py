"""The command ``classify-batch``."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from resnet_service.cli.console import message, one_line_errors, progress_bar
from resnet_service.cli.flags import Arch, AsJson, Checkpoint, Decode, Labels, Runtime, TopK
from resnet_service.types import BatchEngine

if TYPE_CHECKING:
    from resnet_service.batch.job import Totals


def classify_batch(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Folder, glob, image or Parquet; path or URL.")],
    target: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder for Parquet files; path or URL.")],
    engine: Annotated[
        BatchEngine,
        typer.Option(help="local: the CPUs of this machine; ray: the Ray cluster that RAY_ADDRESS names."),
    ] = "local",
    checkpoint: Checkpoint = None,
    runtime: Runtime = "auto",
    arch: Arch = None,
    labels: Labels = None,
    decode: Decode = "fast",
    top_k: TopK = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Images processed at once; by default one per CPU.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify millions of stored images into Parquet files. A repeated run skips finished images."""
    with one_line_errors():
        from resnet_service.batch import job
        from resnet_service.inference.classifier import ClassifierConfig
        from resnet_service.models.discovery import choose_model
        from resnet_service.system.cpus import available_cpus

        if engine == "ray":
            from resnet_service.ray.batch import ray_engine

        config = job.BatchConfig(
            choose_model(checkpoint).absolute(),
            ClassifierConfig(runtime=runtime, arch=arch, label_file=labels, decoding=decode),
            top_k,
        )
        local_workers = workers or available_cpus()
        # Ray's workers open the model again; opening it here first reports a bad model before any of them starts.
        classifier = config.open(local_workers if engine == "local" else 1)
        classifier.warm_up()
        chosen = (
            job.local_engine(classifier, local_workers, top_k)
            if engine == "local"
            else ray_engine(config, classifier, workers)
        )
        with progress_bar("images") as progress:

            def show(totals: "Totals") -> None:
                speed = f"{totals.per_second:,.0f}/s" if totals.seconds else ""
                progress(totals.written + totals.unread, totals.images - totals.before, speed)

            totals = job.classify_batch(source, target, classifier, chosen, config, progress=show)
    for example in totals.examples:
        message(example)
    if as_json:
        print(json.dumps(totals.as_dict()))
    else:
        message(totals.summary())
    if totals.unread:
        raise typer.Exit(1)
