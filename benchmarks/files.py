"""The files that the benchmarks create and cache."""

from pathlib import Path
from typing import Literal

from benchmarks.paths import CACHE

Precision = Literal["int8", "bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("int8", "bf16", "fp32")


class Files:
    """The files of one cache folder."""

    def __init__(self, folder: Path = CACHE) -> None:
        self.folder = folder
        self.photographs_folder = folder / "photographs"
        self.large_folder = folder / "large"
        self.checkpoint = folder / "resnet18.pth"
        self.state_dict = folder / "state_dict.pth"
        self.archive = folder / "archives" / "resnet18.mar"
        self.exported = {precision: folder / f"resnet18-{precision}.onnx" for precision in PRECISIONS}
        self.answers = folder / "answers.json"

    def photographs(self) -> list[Path]:
        """Return the images of ImageNet's usual size."""
        return sorted(self.photographs_folder.glob("*.jpg"))

    def large(self) -> list[Path]:
        """Return the 12-megapixel images."""
        return sorted(self.large_folder.glob("*.jpg"))

    @property
    def checked_image(self) -> Path:
        """The image on which every server's answer is checked."""
        return self.photographs()[0]
