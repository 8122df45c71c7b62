"""The commands that make and inspect model files: ``pull``, ``convert``, ``export``, ``inspect``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnet_service.cli.console import message, one_line_errors, print_error, print_rows, progress_bar
from resnet_service.cli.flags import Arch, AsJson, Calibration, Labels, MaxLoss, ModelFile
from resnet_service.defaults import DEFAULT_MAX_LOSS
from resnet_service.errors import InvalidSettings, SourceUnreachable
from resnet_service.models.discovery import FOLDER
from resnet_service.types import EXPORTED_SUFFIX, Channels, Interpolation, Precision, WeightsDtype, WeightsSource

# Of ``pull``, when there is nothing to export: scripts go on with another model.
EXIT_UNREACHABLE = 3

if TYPE_CHECKING:
    from resnet_service.models.metadata import ModelMetadata


def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Repository of the Hugging Face Hub, or architecture; default resnet18.", show_default=False
        ),
    ] = None,
    source: Annotated[
        WeightsSource, typer.Option(help="Where to fetch from; auto: the first that responds, in this order.")
    ] = "auto",
    arch: Annotated[
        str | None, typer.Option(help="The same as NAME, if that is an architecture.", show_default=False)
    ] = None,
    into: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = FOLDER,
    weights_url: Annotated[
        str | None, typer.Option(help="Folder, or its URL, of a mirror of torchvision's weights, tried first.")
    ] = None,
    if_missing: Annotated[
        bool,
        typer.Option(help="Pull only if the wanted model is not there; export its checkpoint if only that is there."),
    ] = False,
    calibration: Calibration = None,
    max_loss: MaxLoss = DEFAULT_MAX_LOSS,
    show_known: Annotated[bool, typer.Option("--list", help="Show what is known by name, and exit.")] = False,
) -> None:
    """Fetch and check published weights, write a checkpoint, and export it: FP32, or INT8 with --calibration.

    Exit code 3: the weights could not be fetched. Exit code 1: any other error, such as a failed export.
    """
    precision: Precision = "int8" if calibration else "fp32"
    with one_line_errors():
        if show_known:
            from resnet_service.export.sources.catalog import known_weights

            print_rows([("NAME", "size, top-1 accuracy, sources"), *known_weights()])
            return
        if name and arch and name != arch:
            raise InvalidSettings(f"NAME is {name}, and --arch is {arch}. Give one of them.")
        from resnet_service.export.sources.catalog import resolve_name

        if calibration is not None:
            from resnet_service.evaluation.datasets import check_images

            check_images(calibration)
        wanted = name or arch
        wanted = resolve_name(wanted, "NAME" if name else "--arch") if wanted else None
        checkpoint = _find_missing(into, source, wanted, precision) if if_missing else None
        if checkpoint is None:
            from resnet_service.export.pull import pull as pull_from
            from resnet_service.export.sources.base import PullRequest

            try:
                with progress_bar("bytes") as progress:
                    request = PullRequest(wanted, into, mirror=weights_url, on_message=message, progress=progress)
                    pulled = pull_from(source, request)
            except SourceUnreachable as error:
                print_error(str(error))
                raise typer.Exit(EXIT_UNREACHABLE) from error
            message(f"Wrote {pulled.path}: {_summary(pulled.metadata)}")
            checkpoint = pulled.path
        _export(checkpoint, None, precision=precision, calibration=calibration, max_loss=max_loss)


def _find_missing(into: Path, source: WeightsSource, name: str | None, precision: Precision) -> Path | None:
    """Return the checkpoint that only has to be exported; ``None`` to pull. Exit if the model is there."""
    from resnet_service.export.present import find_present

    present = find_present(into, source, name, precision)
    if present.own:
        message(
            f"{present.model} exists already, and is not replaced; name a model, or leave out --if-missing, to pull"
        )
    elif present.model is not None:
        message(f"{present.model} exists already")
    if present.model is not None:
        raise typer.Exit
    return present.checkpoint


def export(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint.")],
    output: Annotated[
        Path | None, typer.Option(help="The exported model to write; by default beside the checkpoint.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="fp32: answers equal to the checkpoint's; bf16, int8: near-identical answers, faster."),
    ] = "fp32",
    calibration: Calibration = None,
    max_loss: MaxLoss = DEFAULT_MAX_LOSS,
    labels: Labels = None,
) -> None:
    """Export a checkpoint to a smaller, faster model that is served without PyTorch."""
    with one_line_errors():
        _export(checkpoint, output, precision=precision, calibration=calibration, max_loss=max_loss, label_file=labels)


def _export(
    checkpoint: Path,
    output: Path | None,
    *,
    precision: Precision,
    calibration: Path | None,
    max_loss: float,
    label_file: Path | None = None,
) -> None:
    from resnet_service.models.file_kinds import check_checkpoint_kind

    check_checkpoint_kind(checkpoint)
    from resnet_service.export.export import default_target
    from resnet_service.export.export import export as export_file

    target = output or default_target(checkpoint, precision)
    export_file(
        checkpoint,
        target,
        precision=precision,
        images=calibration,
        max_loss=max_loss,
        label_file=label_file,
        on_message=message,
    )
    message(f"Wrote {target}: {precision.upper()}, {target.stat().st_size / 1e6:.1f} MB")


def convert(
    source: Annotated[Path, typer.Argument(help="The file to convert.")],
    target: Annotated[
        Path,
        typer.Argument(help="The checkpoint to write, as safetensors or PyTorch file by its suffix; from ONNX, .onnx."),
    ],
    arch: Annotated[
        str | None,
        typer.Option(help="Architecture; by default the one that the file names, or that its weights fit."),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="Number of classes, to be compared with the rows of the last layer.")
    ] = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the network's input, in pixels; by default, like all preprocessing, that of the file, "
            "else that of torchvision's or timm's weights."
        ),
    ] = None,
    resize_size: Annotated[int | None, typer.Option(help="Length of the shorter side before the crop.")] = None,
    interpolation: Annotated[Interpolation | None, typer.Option(help="Interpolation of the resize.")] = None,
    mean: Annotated[Channels | None, typer.Option(help="Mean per channel, of pixels in 0 ... 1.")] = None,
    std: Annotated[Channels | None, typer.Option(help="Standard deviation per channel, of pixels in 0 ... 1.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Names of the classes: a label set, a text file of one name a line, or JSON: a list of names, index "
            "to name, or name to index."
        ),
    ] = None,
    dtype: Annotated[
        WeightsDtype, typer.Option(help="Type of the stored weights; float16 halves the file.")
    ] = "float32",
    part: Annotated[
        str | None, typer.Option(help="Part of the file to take, such as state_dict_ema, if several match.")
    ] = None,
    binary: Annotated[
        bool, typer.Option("--binary", help="Write a network of one output (sigmoid) as one of two classes.")
    ] = False,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Run the code in the file, if its weights are not found without. Only for files you made yourself.",
        ),
    ] = False,
) -> None:
    """Convert weights, a training checkpoint or a pickled model to a checkpoint; or import an ONNX file."""
    with one_line_errors():
        from resnet_service.export.conversion.options import ConvertOptions

        if source.suffix == target.suffix == EXPORTED_SUFFIX:
            from resnet_service.export.onnx_import import import_onnx as convert_file
        else:
            from resnet_service.export.convert import convert as convert_file

        converted = convert_file(
            source,
            target,
            ConvertOptions(
                arch=arch,
                num_classes=num_classes,
                input_size=input_size,
                resize_size=resize_size,
                interpolation=interpolation,
                mean=mean,
                std=std,
                label_file=labels,
                dtype=dtype,
                part=part,
                binary=binary,
                trust_pickle=trust_pickle,
            ),
            on_message=message,
        )
    metadata = converted.metadata
    message(
        f"Wrote {target}: {_summary(metadata)} from {metadata.resize_size}, {metadata.interpolation}, "
        f"mean {_numbers(metadata.mean)}, std {_numbers(metadata.std)} ({converted.preprocessing_source})"
    )


def _numbers(values: Channels) -> str:
    return " ".join(f"{value:g}" for value in values)


def inspect(checkpoint: ModelFile, arch: Arch = None, labels: Labels = None, as_json: AsJson = False) -> None:
    """Check a model file as serve does, and show its metadata."""
    with one_line_errors():
        from resnet_service.models.exported import read_exported
        from resnet_service.models.file_kinds import check_model_kind
        from resnet_service.models.labels import labels_for

        check_model_kind(checkpoint)
        facts: dict[str, Any]
        if checkpoint.suffix == EXPORTED_SUFFIX:
            exported = read_exported(checkpoint)
            metadata, sha256, facts = exported.metadata, exported.sha256, {}
        else:
            metadata, sha256, parameters = _read_checkpoint(checkpoint, arch)
            facts = {"parameters": parameters}
        labels_for(metadata, checkpoint, labels)
    facts = {"file": str(checkpoint), "bytes": checkpoint.stat().st_size, "sha256": sha256, **facts}
    facts |= metadata.model_dump(mode="json")
    if as_json:
        print(json.dumps(facts))
    else:
        print_rows((name, "\n".join(_lines(value))) for name, value in facts.items())


def _read_checkpoint(path: Path, arch: str | None) -> "tuple[ModelMetadata, str, int]":
    """Return metadata, SHA-256 and number of parameters."""
    from resnet_service.models.architecture_names import canonical_for
    from resnet_service.models.checkpoint.weights import needs_pytorch, read_weights

    arch = canonical_for(path, arch)
    if not needs_pytorch(path, arch):
        from resnet_service.models.networks import check_state

        weights = read_weights(path, arch=arch)
        check_state(weights.state, weights.metadata, str(path))
        return weights.metadata, weights.sha256, weights.parameters
    try:
        from resnet_service.models.checkpoint.checkpoint import load_checkpoint
    except ModuleNotFoundError:
        weights = read_weights(path, arch=arch)
        message("PyTorch is not installed: names and shapes of the weights were not compared with the architecture.")
        return weights.metadata, weights.sha256, weights.parameters
    loaded = load_checkpoint(path, arch=arch)
    return loaded.metadata, loaded.sha256, sum(parameter.numel() for parameter in loaded.model.parameters())


def _summary(metadata: "ModelMetadata") -> str:
    source = f" from {metadata.provenance.source}" if metadata.provenance else ""
    return f"{metadata.arch}{source}, {metadata.num_classes} classes, {metadata.input_size} pixels"


def _lines(value: Any) -> list[str]:
    """Format a value as lines: a dict as one line per key with its content indented; ``None`` is left out."""
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
