"""INT8 quantization of an ONNX graph by NNCF."""

import warnings

import nncf
import numpy as np
import onnx
from numpy.typing import NDArray

from resnet_service.export.quiet import quiet
from resnet_service.models.exported import INPUT


def quantize(model: onnx.ModelProto, crops: list[NDArray[np.uint8]]) -> onnx.ModelProto:
    """Quantize weights (per channel) and activations to 8 bits, with biases corrected for the resulting error."""
    calibration = nncf.Dataset([{INPUT: image[np.newaxis]} for image in crops])
    with warnings.catch_warnings(), quiet("nncf"):
        warnings.simplefilter("ignore")
        quantized: onnx.ModelProto = nncf.quantize(model, calibration, subset_size=len(crops))
    return quantized
