"""Data sets: labelled images to evaluate a model on, as encoded files like those that clients send.

Three layouts are known: a folder with one folder per class, named after it; a CSV with the columns ``path`` and
``label``, paths relative to it; Fashion-MNIST's IDX files. A class is named by its name or its id in the model's label
set.
"""

import csv
import difflib
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnet_service.errors import InvalidDataset, UnknownClass
from resnet_service.models.labels import LabelSet

_IDX_UNSIGNED_BYTE = 8
_TRAIN_IMAGES, _TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_TEST_IMAGES, _TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
UNLABELLED = -1

_LAYOUTS = (
    "a folder with one folder per class, a .csv with the columns path and label, or a folder with Fashion-MNIST's files"
)


class Sample(NamedTuple):
    """One image: its name in messages, the index of its true class, and a function that reads its encoded bytes.

    The class is ``UNLABELLED`` only in the results of ``open_images``.
    """

    name: str
    class_id: int
    read: Callable[[], bytes]


class Dataset(NamedTuple):
    """A name, at least one sample, and a SHA-256 over all images and their classes."""

    name: str
    samples: list[Sample]
    sha256: str


def open_dataset(path: Path, labels: LabelSet) -> Dataset:
    """Detect the layout of ``path`` and list its samples; images are read one at a time.

    Raises:
        InvalidDataset: The path does not exist, has no known layout, or contains no images.
        UnknownClass: The data set has a class that the label set does not have.

    """
    if path.suffix == ".csv" and path.is_file():
        samples, digest = _hashed(_from_csv(path, labels))
    elif path.is_dir() and _idx_file(path, _TEST_IMAGES):
        samples, digest = _from_fashion_mnist(path, labels, _TEST_IMAGES, _TEST_LABELS)
    elif path.is_dir():
        samples, digest = _hashed(_from_folders(path, labels))
    elif not path.exists():
        raise InvalidDataset(f"There is no {path}. Give {_LAYOUTS}.")
    else:
        raise InvalidDataset(f"{path} is not a data set: give {_LAYOUTS}.")
    if not samples and _files(path):
        raise InvalidDataset(
            f"{path} has files, but no folders of classes, so the true classes are not known. Give {_LAYOUTS}."
        )
    if not samples:
        raise InvalidDataset(f"The data set {path} is empty: it contains no images.")
    return Dataset(path.resolve().stem, samples, digest)


def open_images(path: Path, labels: LabelSet) -> tuple[Dataset, bool]:
    """List images to export a model with; return them, and whether their classes are known.

    The layouts are those of ``open_dataset``, and a folder of images without subfolders. Of Fashion-MNIST, the training
    images are returned.

    Raises:
        InvalidDataset: As for ``open_dataset``.
        UnknownClass: As for ``open_dataset``.

    """
    if path.is_dir() and _idx_file(path, _TRAIN_IMAGES):
        samples, digest = _from_fashion_mnist(path, labels, _TRAIN_IMAGES, _TRAIN_LABELS)
        return Dataset(path.resolve().stem, samples, digest), True
    check_images(path)
    files = _files(path)
    if files and not any(child.is_dir() for child in path.iterdir()):
        samples, digest = _hashed([Sample(file.name, UNLABELLED, file.read_bytes) for file in files])
        return Dataset(path.resolve().stem, samples, digest), False
    try:
        return open_dataset(path, labels), True
    except UnknownClass as error:
        if not path.is_dir():
            raise
        raise UnknownClass(f"{error} If the classes of the images are not known, put them in one folder.") from error


def check_images(path: Path) -> None:
    """Check, before the label set is known, that there is something that ``open_images`` may take.

    Raises:
        InvalidDataset: The path does not exist, is empty, or a file of another kind.

    """
    layouts = f"a folder of images, {_LAYOUTS}"
    if not path.exists():
        raise InvalidDataset(f"There is no {path}. Give {layouts}.")
    if path.is_dir():
        if not any(not child.name.startswith(".") for child in path.iterdir()):
            raise InvalidDataset(f"The folder {path} is empty. Give {layouts}.")
    elif path.suffix != ".csv":
        raise InvalidDataset(f"{path} is not a data set: give {layouts}.")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not: the format of MNIST.

    The layout, from http://yann.lecun.com/exdb/mnist: two zero bytes, the type, the number of dimensions, each
    dimension as a big-endian 32-bit number, the data.

    Raises:
        InvalidDataset: Not such a file, or incomplete.

    """
    try:
        data = path.read_bytes()
        content = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidDataset(f"{path} cannot be read: {error}.") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UNSIGNED_BYTE:
        raise InvalidDataset(f"{path} is not an IDX file of unsigned bytes.")
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[start : start + 4], "big") for start in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        raise InvalidDataset(
            f"{path} is incomplete: its header says {shape}, but it has {len(content) - header:,} bytes."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _files(path: Path) -> list[Path]:
    """Return the files of a folder, hidden ones aside; none of anything else."""
    if not path.is_dir():
        return []
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))


def _from_folders(path: Path, labels: LabelSet) -> list[Sample]:
    names = _ClassIndex(labels, path)
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return [
        Sample(str(file.relative_to(path)), names[folder.name], file.read_bytes)
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.startswith(".")
    ]


def _from_csv(path: Path, labels: LabelSet) -> list[Sample]:
    names = _ClassIndex(labels, path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{path} is not a CSV file in UTF-8: {error}.") from error
    if rows and not {"path", "label"} <= rows[0].keys():
        raise InvalidDataset(f"{path} needs the columns path and label; it has {', '.join(map(str, rows[0]))}.")
    incomplete = [number for number, row in enumerate(rows, 2) if not row["path"] or not row["label"]]
    if incomplete:
        raise InvalidDataset(f"{path}, line {incomplete[0]}: path or label is missing.")
    return [Sample(row["path"], names[row["label"]], (path.parent / row["path"]).read_bytes) for row in rows]


def _from_fashion_mnist(path: Path, labels: LabelSet, image_name: str, label_name: str) -> tuple[list[Sample], str]:
    label_file, image_file = _idx_file(path, label_name), _idx_file(path, image_name)
    if label_file is None or image_file is None:
        raise InvalidDataset(f"{path} has images, but no labels: {label_name}.gz is missing.")
    images, classes = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or classes.shape != images.shape[:1]:
        raise InvalidDataset(f"{path}: images of shape {images.shape} do not match labels of shape {classes.shape}.")
    if len(classes) and classes.max() >= len(labels):
        raise UnknownClass(f"{path} has the class {classes.max()}, but the model's classes are 0 to {len(labels) - 1}.")
    samples = [
        Sample(f"{image_file.name}[{index}]", int(class_id), partial(_png, images[index]))
        for index, class_id in enumerate(classes)
    ]
    return samples, hashlib.sha256(images.tobytes() + classes.tobytes()).hexdigest()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _hashed(samples: list[Sample]) -> tuple[list[Sample], str]:
    digest = hashlib.sha256()
    for sample in samples:
        try:
            data = sample.read()
        except OSError:  # the evaluation reports it; the digest treats it as empty
            data = b""
        digest.update(hashlib.sha256(data).digest() + sample.class_id.to_bytes(4, "big", signed=True))
    return samples, digest.hexdigest()


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / f"{name}.gz", folder / name) if file.is_file()), None)


class _ClassIndex(dict[str, int]):
    """Class index by name or id; names take precedence."""

    def __init__(self, labels: LabelSet, where: Path) -> None:
        super().__init__({label.id: label.index for label in labels.classes if label.id is not None})
        self.update({label.name: label.index for label in labels.classes})
        self._where = where

    def __missing__(self, key: str) -> int:
        similar = difflib.get_close_matches(key, self, n=3)
        hint = f" Similar: {', '.join(similar)}." if similar else ""
        raise UnknownClass(f"{self._where} has the class {key!r}, which is not in the model's label set.{hint}")
