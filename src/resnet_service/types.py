"""Literals and defaults that several packages share, each written once."""

from typing import Literal

RuntimeName = Literal["auto", "openvino", "torch", "torchscript", "torch-dynamic-int8"]
Precision = Literal["fp32", "bf16", "int8"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
# How images are decoded: to pixels equal to the reference transforms', or to near-identical pixels, faster.
Fidelity = Literal["exact", "fast"]
# How a class activation map is returned: drawn over the image, drawn alone, or as numbers.
MapForm = Literal["overlay", "map", "json"]
WeightsDtype = Literal["float32", "float16"]
# Each but auto is a module of export.sources; auto tries them in this order.
WeightsSource = Literal["auto", "torchvision", "pypi"]
BatchEngine = Literal["local", "ray"]

# The image formats that are decoded, by Pillow's names.
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
CHECKPOINT_SUFFIX = ".pth"
EXPORTED_SUFFIX = ".onnx"

DEFAULT_TOP_K = 5
DEFAULT_MAX_PIXELS = 50_000_000
# Percentage points of top-1 accuracy that an exported model may lose.
DEFAULT_MAX_LOSS = 1.0
