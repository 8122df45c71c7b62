"""The seeds of fuzzing: `python -m fuzz.seeds` writes them; they are small, and the same each time."""

import argparse
import collections
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fuzz import bombs, client_bodies, heic
from fuzz.targets import CORPUS, SMALLEST_GRAPH
from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.checkpoint.safetensors import dump_arrays


def images() -> dict[str, bytes]:
    """Return small images of every accepted format, and of variants that take other code paths."""
    colours = Image.linear_gradient("L").resize((16, 12)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, file_format: str, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        made[f"{name}.{file_format.lower()}"] = buffer.getvalue()

    for file_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        add("plain", colours, file_format)
    add("progressive", colours, "JPEG", progressive=True, exif=exif)
    add("cmyk", colours.convert("CMYK"), "JPEG")
    add("palette", colours.convert("P"), "PNG", transparency=0)
    add("interlaced", colours.convert("RGBA"), "PNG", exif=exif)
    add("lossless", colours.convert("RGBA"), "WEBP", lossless=True)
    for file_format in ("WEBP", "GIF", "PNG", "AVIF", "TIFF"):
        add("frames", colours, file_format, save_all=True, append_images=[colours.rotate(90)])
    for compression in ("tiff_deflate", "tiff_lzw", "jpeg", "packbits"):
        add(compression, colours, "TIFF", compression=compression, exif=exif)
    add("big", colours, "TIFF", big_tiff=True)
    grey = np.asarray(colours.convert("L")).astype(np.uint16) * 257
    deep = np.asarray(colours).astype(np.uint16) * 257
    kinds: dict[str, tuple[np.ndarray[Any, Any], dict[str, Any]]] = {
        "planes": (np.moveaxis(deep, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "tiled_planes": (
            np.moveaxis(deep, -1, 0),
            {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)},
        ),
        "negative": (grey, {"photometric": "miniswhite", "byteorder": ">"}),
        "12_bits": (grey >> 4, {"photometric": "minisblack", "bitspersample": 12}),
        "big_endian_big": (np.asarray(colours), {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
        "floats": (deep.astype(np.float32), {"photometric": "rgb"}),
        "texts": (np.asarray(colours), {"photometric": "rgb", "extratags": [(700, "s", 0, "<x/>", True)]}),
    }
    for name, (pixels, options) in kinds.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, metadata=None, **options)
        made[f"{name}.tiff"] = buffer.getvalue()
    made["without_end.jpeg"] = made["plain.jpeg"][:-2]
    made["cut.jpeg"] = made["plain.jpeg"][:-20]
    made["segments.jpeg"] = made["plain.jpeg"][:2] + b"\xff\xed\0\4ab" + made["plain.jpeg"][2:]
    add("texts", colours, "PNG", exif=exif, icc_profile=b"profile", pnginfo=_texts())
    made["plain.heic"] = heic.encoded(colours)
    made["alpha.heic"] = heic.encoded(colours.convert("RGBA"), chroma=444)
    made["beside.heic"] = heic.encoded(colours, exif=exif, xmp=b"<x/>", append_images=[])
    made["tiles.heic"] = heic.tiled(heic.coded(colours), 2, 2, 30, 22)
    made["runs.bmp"] = bombs._bmp(4, 4, 1, b"\4x\0\0\4y\0\0\0\2\1\1\0\4abcd\0\1")
    return made


def _texts() -> PngInfo:
    texts = PngInfo()
    texts.add_text("Comment", "text", zip=True)
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    texts.add(b"prIv", b"private")
    return texts


def uploads() -> dict[str, bytes]:
    """Return requests of everyday clients and their mistakes: the Content-Type, a line feed and the body."""
    image = images()["plain.png"]
    sent = {
        **client_bodies.forms(image),
        **client_bodies.raw(image),
        **{name: body for name, (body, _) in client_bodies.mistakes(image).items()},
    }
    several = client_bodies.forms(image, "files")
    sent |= {f"files {name}": several[name] for name in (".NET, name beyond ASCII", "aiohttp, bytes")}
    fields = client_bodies.fields({"top_k": "1", "lang": "zh"}, "b")
    sent["fields"] = client_bodies.Body("multipart/form-data; boundary=b", fields + b"--b--")
    return {
        re.sub("[^a-z0-9]+", "_", name.lower()).strip("_"): f"{body.media_type}\n".encode() + body.data
        for name, body in sent.items()
    }


def checkpoints() -> dict[str, bytes]:
    """Return small files of ``torch.save``, without whole networks."""
    content = {"arch": "resnet18", "num_classes": 2, "input_size": 64, "state_dict": {"fc.bias": torch.zeros(2)}}
    made: dict[str, bytes] = {}
    for name, zipped in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        made[f"{name}.pth"] = buffer.getvalue()
    training = {
        "model": {"module.fc": torch.nn.Linear(2, 2).requires_grad_(False)},
        "ema": {"fc.weight": torch.zeros(2, 3, dtype=torch.bfloat16).T, "fc.bias": torch.zeros(2, dtype=torch.float64)},
        "args": argparse.Namespace(model="resnet18"),
        "classes": np.array(["cat", "dog"]),
        "class_to_idx": collections.OrderedDict(cat=0, dog=1),
        "best": np.float64(0.5),
        "seen": {1, 2},
    }
    for tensor in training["model"]["module.fc"].parameters():  # type: ignore[index]
        tensor.zero_()
    for name, zipped in (("training_zip", True), ("training_legacy", False)):
        buffer = io.BytesIO()
        torch.save(training, buffer, _use_new_zipfile_serialization=zipped)
        made[f"{name}.pth"] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\n)R.")
    made["code.pth"] = buffer.getvalue()
    # Its entries are marked as encrypted, in the directory and in their headers.
    locked = bytearray(made["zip.pth"])
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = locked.find(signature)
        while at >= 0:
            locked[at + offset] |= 1
            at = locked.find(signature, at + 4)
    made["encrypted.pth"] = bytes(locked)
    return made


def undigested(metadata: Mapping[str, Any], state: Mapping[str, Array]) -> bytes:
    """Return a safetensors file that carries no digest: the comparison with it would stop every damaged file first."""
    return dump_arrays(metadata, state).replace(b'"resnet_service_sha256"', b'"other_service_sha256_"')


def safetensors_files() -> dict[str, bytes]:
    """Return small safetensors files: one with metadata, one of each type of number, and one that breaks the rules."""
    metadata = {"arch": "resnet18", "num_classes": 2, "input_size": 64}
    state: dict[str, Array] = {"fc.bias": np.zeros(2, np.float32), "bn1.num_batches_tracked": np.zeros((), np.int64)}
    types: dict[str, Array] = {"a": np.zeros(3, np.float16), "b": np.zeros((1, 2), np.uint16)}
    sound = undigested(metadata, state)
    return {
        "sound.safetensors": sound,
        "digest.safetensors": dump_arrays(metadata, state),
        "types.safetensors": undigested({}, types).replace(b'"resnet_service"', b'"other_service_"'),
        "overlap.safetensors": sound.replace(b"[8,16]", b"[0,8] "),
    }


def graphs() -> dict[str, bytes]:
    """Return parts of checkpoints whose graph can be built without PyTorch: sound ones, and extremes of each field."""
    norm, bias = "bn1.running_var", {"classifier.bias": np.zeros(2, np.float32)}
    sound: dict[str, Any] = {"arch": SMALLEST_GRAPH, "num_classes": 2, "input_size": 64}
    extremes: dict[str, tuple[dict[str, Any], dict[str, Array]]] = {
        "sound": ({}, {}),
        "many_classes": ({"num_classes": 100_000}, {}),
        "large_input": ({"input_size": 4096, "resize_size": 4096}, {}),
        "small_input": ({"input_size": 8}, {}),
        "tiny_std": ({"std": [5e-324, 1e-40, 1e-30]}, {}),
        "large_mean": ({"mean": [1e308, -1e308, 1e39]}, {}),
        "denormal_variance": ({}, {norm: np.full(32, 1e-45, np.float32)}),
        "negative_variance": ({}, {norm: np.full(32, -1, np.float32)}),
        "infinite_scale": ({}, {norm: np.full(32, -0.001, np.float32), "bn1.weight": np.full(32, 3e38, np.float32)}),
        "nan": ({}, {norm: np.full(32, np.nan, np.float32)}),
        "wrong_shape": ({}, {norm: np.zeros((4, 8), np.float32)}),
        "unknown_key": ({}, {"extra.weight": np.zeros(1, np.float32)}),
        "scalar_classifier": ({}, {"classifier.weight": np.zeros((), np.float32)}),
    }
    return {
        f"{name}.safetensors": undigested({**sound, **metadata}, {**bias, **state})
        for name, (metadata, state) in extremes.items()
    }


def third_party_models() -> dict[str, bytes]:
    """Return small ONNX files as other programs write them."""
    from onnx import TensorProto, helper, numpy_helper

    def model(dims: list[Any], last: list[Any], further: list[str], opset: int, kind: int = TensorProto.FLOAT) -> bytes:
        nodes = [
            helper.make_node("Conv", ["image", "filters"], ["map"]),
            helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "matrix"], ["scores"], transB=1),
            *last,
        ]
        inputs = [helper.make_tensor_value_info("image", kind, dims)]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in further]
        weights = [
            numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in (("filters", (2, 3, 1, 1)), ("matrix", (2, 2)))
        ]
        graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        data: bytes = made.SerializeToString()
        return data

    softmax = [helper.make_node("Softmax", ["scores"], ["p"], axis=1), helper.make_node("Identity", ["p"], ["q"])]
    loop = [helper.make_node("Identity", ["b"], ["a"]), helper.make_node("Identity", ["a"], ["b"])]
    return {
        "softmax.onnx": model(["n", 3, 16, 16], softmax, ["q"], 18),
        "channels_last.onnx": model([1, "h", "w", 3], [], ["scores", "flat"], 9),
        "bytes.onnx": model([-1, 3, 16, 16], [], ["scores"], 13, TensorProto.UINT8),
        "loop.onnx": model([1, 3, 16, 16], loop, ["a"], 18),
    }


def exported_models(folder: Path) -> dict[str, bytes]:
    """Return small exported models."""
    made: dict[str, bytes] = {}
    for name in ("exported_sound", "exported_with_weights_elsewhere"):
        path = folder / name
        bombs.MODELS[name](path)
        made[f"{name}.onnx"] = path.read_bytes()
        path.unlink()
    return made


def main() -> None:
    """Write all seeds."""
    for target, files in (
        ("decode", images()),
        ("upload", uploads()),
        ("checkpoint", checkpoints()),
        ("safetensors", safetensors_files()),
        ("exported", exported_models(CORPUS / "exported")),
        ("graph", graphs()),
        ("third_party", third_party_models()),
    ):
        for name, data in files.items():
            (CORPUS / target).mkdir(exist_ok=True)
            (CORPUS / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
