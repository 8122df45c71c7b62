"""What a file is, from its first bytes: for files that are no model file of this service, what they are and what to do.

Nothing here reads weights or runs code in the file.
"""

import contextlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from resnet_service.errors import ModelError, PickledCode, UnreadableModel
from resnet_service.models.checkpoint.safetensors import is_safetensors
from resnet_service.models.exported import read_exported
from resnet_service.system.files import check_model_file
from resnet_service.types import CHECKPOINT_SUFFIXES, EXPORTED_SUFFIX, SAFETENSORS_SUFFIX

_HEAD_BYTES = 4096
_MAX_ZIP_NAMES = 20_000
_ZIP = b"PK\x03\x04"
_LATEST_IR_VERSION = 64  # of ONNX; it is 13 today
_ONNX_TAGS = b"\x12\x1a\x22\x28\x32\x3a\x42"  # of the fields 2 to 8: producer, …, graph, operator sets

_KERAS = (
    "Convert the model to ONNX with tf2onnx, and import that: resnet-service convert model.onnx OUTPUT.onnx; or save "
    "the weights of the same architecture from PyTorch."
)
_IMAGE = "Name the model file; `resnet-service classify` takes images."
_UNPACK = "Unpack it, and name the file of weights in it."


class _Kind(NamedTuple):
    """What a file is, as in "FILE is WHAT.", and what to do about it, a sentence in which {path} is the file."""

    what: str
    advice: str
    error: type[ModelError] = UnreadableModel


# Signature, where it stands in the file, and the kind.
_SIGNATURES: Sequence[tuple[bytes, int, _Kind]] = (
    (
        b"version https://git-lfs.github.com/",
        0,
        _Kind("a Git LFS pointer, not the file itself", "Run `git lfs pull` in its repository."),
    ),
    (b"\x89HDF\r\n\x1a\n", 0, _Kind("an HDF5 file, as TensorFlow and Keras write it", _KERAS)),
    (b"TFL3", 4, _Kind("a TensorFlow Lite model", _KERAS)),
    (b"\x93NUMPY", 0, _Kind("a numpy array", "Name a checkpoint or an exported model.")),
    (
        b"GGUF",
        0,
        _Kind("a GGUF file, the format of language models", "Name a checkpoint or an exported model of a classifier."),
    ),
    (b"\x89PNG\r\n\x1a\n", 0, _Kind("an image (PNG)", _IMAGE)),
    (b"\xff\xd8\xff", 0, _Kind("an image (JPEG)", _IMAGE)),
    (b"GIF8", 0, _Kind("an image (GIF)", _IMAGE)),
    (b"WEBP", 8, _Kind("an image (WebP)", _IMAGE)),
    (b"ftypavif", 4, _Kind("an image (AVIF)", _IMAGE)),
    (b"II*\0", 0, _Kind("an image (TIFF)", _IMAGE)),
    (b"MM\0*", 0, _Kind("an image (TIFF)", _IMAGE)),
    (b"%PDF-", 0, _Kind("a PDF document", "Name the model file.")),
    (b"\x1f\x8b", 0, _Kind("a gzip archive", _UNPACK)),
    (b"\xfd7zXZ\0", 0, _Kind("an xz archive", _UNPACK)),
    (b"BZh", 0, _Kind("a bzip2 archive", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", 0, _Kind("a zstd archive", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", 0, _Kind("a 7z archive", _UNPACK)),
    (b"ustar", 257, _Kind("a tar archive", _UNPACK)),
)

# A file name within a zip archive (or its end, if it begins with "*"), and the kind. The first that fits counts.
_ZIP_MEMBERS: Sequence[tuple[str, _Kind]] = (
    (
        "*/constants.pkl",
        _Kind(
            "a TorchScript archive, which contains code and cannot be loaded safely",
            "Save the model's state_dict instead; if you made the file yourself, convert it once: "
            "resnet-service convert --trust-pickle {path} OUTPUT.safetensors",
            PickledCode,
        ),
    ),
    *(
        (
            name,
            _Kind(
                "a torch.export archive, which contains a whole program",
                "Save its weights instead, in Python: torch.save(dict(torch.export.load({path!r}).state_dict), "
                "'weights.pth'), and convert those: resnet-service convert weights.pth OUTPUT.safetensors",
                PickledCode,
            ),
        )
        for name in ("*/archive_format", "archive_format", "serialized_exported_program.json")
    ),
    ("model.weights.h5", _Kind("a Keras model", _KERAS)),
    ("*.npy", _Kind("an archive of numpy arrays", "Name a checkpoint or an exported model.")),
)
_TORCH_SAVE = "*/data.pkl"

_SAVED_MODEL = "saved_model.pb"


def check_model_kind(path: Path) -> None:
    """Refuse what is neither a checkpoint nor an exported model, by its first bytes.

    Files that cannot be told apart from a damaged model file pass; the reader of their format refuses them.

    Raises:
        ModelFileNotFound: No such file.
        UnreadableModel: Another kind of file, or a folder; the message says which, and what to do.
        PickledCode: An archive that contains code.

    """
    if path.is_dir():
        raise UnreadableModel(_about_folder(path))
    check_model_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UnreadableModel(f"{path} cannot be read: {error.strerror}.") from error
    kind = _by_signature(head)
    if kind is None and head.startswith(_ZIP):
        kind = _in_zip(path)
    if kind is None:
        kind = _by_text(head)
    if kind is None and path.suffix == ".pb":
        kind = _Kind("a TensorFlow graph", _KERAS)
    kind = kind or _misnamed(head, path.suffix)
    if kind is not None:
        raise kind.error(f"{path} is {kind.what}. {kind.advice.format(path=str(path))}")


def check_checkpoint_kind(path: Path) -> None:
    """Refuse what is not a checkpoint, exported models included; errors as of ``check_model_kind``.

    Raises:
        InvalidMetadata: A third-party ONNX file; the message names ``convert``.

    """
    check_model_kind(path)
    if path.suffix == EXPORTED_SUFFIX:
        read_exported(path)  # says what is wrong with ONNX files that `export` did not write
        raise UnreadableModel(
            f"{path} is an exported model. Serve it as it is, or name the checkpoint it was made from."
        )


def _misnamed(head: bytes, suffix: str) -> _Kind | None:
    """Return the kind of a model file whose name says that it is of another format."""
    if suffix != EXPORTED_SUFFIX and _is_onnx(head):
        return _Kind("an ONNX file", f"Rename it: its name must end in {EXPORTED_SUFFIX}.")
    if suffix == EXPORTED_SUFFIX and is_safetensors(head):
        return _Kind("a safetensors file", f"Rename it: its name must end in {SAFETENSORS_SUFFIX}.")
    if suffix in (EXPORTED_SUFFIX, SAFETENSORS_SUFFIX) and head.startswith((_ZIP, b"\x80\x02")):
        return _Kind("a file of torch.save", "Rename it: its name must end in .pth.")
    return None


def _by_signature(head: bytes) -> _Kind | None:
    return next((kind for magic, at, kind in _SIGNATURES if head[at : at + len(magic)] == magic), None)


def _in_zip(path: Path) -> _Kind | None:
    """Return the kind of a zip archive by the names of its members, or ``None`` if ``torch.save`` may have made it."""
    names: list[str] = []
    # Damaged archives are refused by their reader, and so are those with too many members.
    damage = (OSError, ValueError, NotImplementedError, OverflowError, zipfile.BadZipFile)
    with contextlib.suppress(*damage), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not names or len(names) > _MAX_ZIP_NAMES:
        return None
    for wanted, kind in _ZIP_MEMBERS:
        if any(_fits(name, wanted) for name in names):
            return kind
    if any(_fits(name, _TORCH_SAVE) for name in names):
        return None
    models = [name for name in names if name.endswith((*CHECKPOINT_SUFFIXES, EXPORTED_SUFFIX, ".pt", ".bin"))]
    # The names are untrusted: they are shown only if they are short and printable.
    shown = next((name for name in models if name.isprintable() and len(name) < 200), None)
    return _Kind("a zip archive", f"Unpack it, and name the file in it: {_braced(shown)}." if shown else _UNPACK)


def _fits(name: str, wanted: str) -> bool:
    return name.endswith(wanted[1:]) if wanted.startswith("*") else name == wanted


def _braced(text: str) -> str:
    """Protect braces from ``str.format``."""
    return text.replace("{", "{{").replace("}", "}}")


def _by_text(head: bytes) -> _Kind | None:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a character that the end of the head divides is no error
            return None
        text = head[: error.start].decode()
    start = text.lstrip("\ufeff \t\r\n")
    # A pickle of protocol 0 is text, too; it ends up with the reader of pickles.
    if not start or not all(character.isprintable() or character in "\t\r\n\f" for character in text):
        return None
    if start[:15].lower().startswith(("<!doctype html", "<html")):
        return _Kind("a web page: the download answered with a page instead of the file", "Fetch the file again.")
    if "<net " in text and start.startswith("<"):
        return _Kind("a model of OpenVINO", "Export the checkpoint that it was made from: resnet-service export.")
    if start.startswith(("{", "[")):
        return _Kind("a JSON file", "Name the model file; label sets are given with --labels.")
    if start.startswith(("c", "(")) and text.rstrip().endswith("."):
        return None
    return _Kind("a text file", "Name the model file.")


def _is_onnx(head: bytes) -> bool:
    """Whether the file begins with the fields of an ONNX model: its IR version, then one of the other fields."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] <= _LATEST_IR_VERSION and head[2] in _ONNX_TAGS


def _about_folder(path: Path) -> str:
    if (path / _SAVED_MODEL).is_file():
        return f"{path} is a folder with a TensorFlow SavedModel. {_KERAS}"
    suffixes = (*CHECKPOINT_SUFFIXES, EXPORTED_SUFFIX, ".pt", ".bin")
    models = sorted(file for file in path.iterdir() if file.suffix in suffixes and file.is_file())
    if models:
        return f"{path} is a folder. Name the model file in it: {models[0]}"
    return f"{path} is a folder without a model file. Name a checkpoint or an exported model."
