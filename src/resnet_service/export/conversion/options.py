"""What the caller of ``convert`` says of a file, and what it gets back."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from resnet_service.models.metadata import ModelMetadata
from resnet_service.types import Channels, Interpolation, WeightsDtype


@dataclass(frozen=True)
class ConvertOptions:
    """Metadata of the file to write, and how it is made.

    Args:
        arch: The architecture, in any spelling. By default the one that the file names, or that its weights match. Of
            an ONNX file, the name in the metadata; by default the file's.
        num_classes: To be compared with the rows of the last layer. Of an ONNX file, it chooses between several
            outputs.
        input_size: ``input_size`` to ``std`` are as in ``ModelMetadata``. By default they are those of the file, else
            those with which torchvision or timm publish weights of the architecture; of an ONNX file, ImageNet's, and
            ``input_size`` is needed if the network takes images of any size.
        resize_size: By default in the architecture's proportion to ``input_size``.
        interpolation: See ``input_size``.
        mean: See ``input_size``.
        std: See ``input_size``.
        label_file: The names of the classes: a label set, or one of the forms of ``label_forms``.
        dtype: Type of the stored weights. This and the following are for checkpoints, not for ONNX files.
        part: The part of the file to take, if several match.
        binary: Write a network of one output, whose sigmoid is the probability of the second class, as one of two.
        trust_pickle: Run the code of a pickled model, in a child process. Only for files you made yourself.

    """

    arch: str | None = None
    num_classes: int | None = None
    input_size: int | None = None
    resize_size: int | None = None
    interpolation: Interpolation | None = None
    mean: Channels | None = None
    std: Channels | None = None
    label_file: Path | None = None
    dtype: WeightsDtype = "float32"
    part: str | None = None
    binary: bool = False
    trust_pickle: bool = False


DEFAULT_OPTIONS = ConvertOptions()


class Converted(NamedTuple):
    """The metadata of the file that was written, and where its preprocessing comes from, for a message."""

    metadata: ModelMetadata
    preprocessing_source: str
