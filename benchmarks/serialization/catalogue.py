"""The ways of saving a network that are compared."""

from typing import Literal, NamedTuple

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
PRECISIONS = ("fp32", "bf16", "int8")


class Text(NamedTuple):
    """A text in both languages of the page."""

    en: str
    zh: str


class Format(NamedTuple):
    """One way of saving a network.

    ``loader`` is the name of a function in ``loaders``; ``ours`` says that this service writes the file.
    """

    name: str
    file: str
    title: Text
    loader: str
    loaded_by: Text
    ours: bool = False


SERVICE = Text("this service", "本服务")
FORMATS: tuple[Format, ...] = (
    Format(
        "state_dict",
        "state_dict.pth",
        Text("bare `state_dict`", "单独的 `state_dict`"),
        "state_dict",
        Text("`torch.load`, `load_state_dict`", "`torch.load`、`load_state_dict`"),
    ),
    Format(
        "pickle",
        "whole.pth",
        Text("whole model, `torch.save(model)`", "整个模型，`torch.save(model)`"),
        "pickle",
        Text("`torch.load(weights_only=False)`", "`torch.load(weights_only=False)`"),
    ),
    Format(
        "checkpoint",
        "checkpoint.pth",
        Text("checkpoint dict, our `.pth`", "检查点字典，本服务的 `.pth`"),
        "service",
        SERVICE,
        ours=True,
    ),
    Format(
        "safetensors-library",
        "weights.safetensors",
        Text("safetensors, weights only", "safetensors，只有权重"),
        "safetensors",
        Text("`safetensors.torch.load_file`", "`safetensors.torch.load_file`"),
    ),
    Format(
        "safetensors",
        "checkpoint.safetensors",
        Text("checkpoint, our `.safetensors`", "检查点，本服务的 `.safetensors`"),
        "service",
        SERVICE,
        ours=True,
    ),
    Format(
        "torchscript",
        "scripted.pt",
        Text("TorchScript", "TorchScript"),
        "torchscript",
        Text("`torch.jit.load`", "`torch.jit.load`"),
    ),
    Format(
        "torch-export",
        "exported.pt2",
        Text("`torch.export`, `.pt2`", "`torch.export`，`.pt2`"),
        "torch_export",
        Text("`torch.export.load`", "`torch.export.load`"),
    ),
    Format(
        "onnx",
        "plain.onnx",
        Text("ONNX, PyTorch's exporter", "ONNX，PyTorch 的导出器"),
        "onnx",
        Text("ONNX Runtime", "ONNX Runtime"),
    ),
    *(
        Format(
            precision,
            f"model-{precision}.onnx",
            Text(f"our export, {precision.upper()}", f"本服务导出的模型，{precision.upper()}"),
            "service",
            SERVICE,
            ours=True,
        )
        for precision in PRECISIONS
    ),
)
