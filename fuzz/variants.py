"""Images of every format, mode, bit depth and way of storage, of any size; the costs of decoding are measured on them.

`python -m fuzz.variants [MEGAPIXELS]` decodes each in a separate process and prints a Markdown table: the estimate of
``imaging.decoding_memory``, and the growth of resident memory at its peak.
"""

import io
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from fuzz import heic

_SIDEWAYS = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"

Make = Callable[[int, int], bytes]

_TURNED = b'<x tiff:Orientation="6"/>'


def _pixels(width: int, height: int, mode: str) -> Image.Image:
    """Return an image without zero bytes, since memory that is not written to is not counted; it packs well."""
    row = np.random.default_rng(0).integers(100, 200, (1, width // 16 + 1, 4), np.uint8).repeat(16, axis=1)[:, :width]
    if mode == "I;16":
        grey = np.broadcast_to(row[..., 0].astype(np.uint16) * 256 + 1, (height, width))
        return Image.fromarray(np.ascontiguousarray(grey))
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(row, (height, width, 4))), "RGBA")
    if mode in ("CMYK", "P", "1", "L", "RGB", "YCbCr", "LAB"):
        image = image.convert("RGB")
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    return image if image.mode == mode else image.convert(mode)


def _variant(mode: str, file_format: str, **options: Any) -> Make:
    def make(width: int, height: int) -> bytes:
        buffer = io.BytesIO()
        settings = dict(options)
        if turn := settings.pop("turn", None):
            exif = Image.Exif()
            exif[0x0112] = turn
            settings["exif"] = exif.tobytes()
        _pixels(width, height, mode).save(buffer, file_format, **settings)
        return buffer.getvalue()

    return make


def _heic(mode: str, **options: Any) -> Make:
    return lambda width, height: heic.encoded(_pixels(width, height, mode), **options)


def _heic_deep(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    data = np.asarray(_pixels(width, height, "RGB")).astype("<u2") * 257
    options = {"enc_params": {"preset": "ultrafast"}, "save_to_12bit": False}
    pillow_heif.encode("RGB;16", (width, height), data.tobytes(), buffer, **options)
    return buffer.getvalue()


def _transparent_late(mode: str) -> Make:
    """Build a PNG whose transparent colour comes after its pixels."""

    def make(width: int, height: int) -> bytes:
        data = _variant(mode, "PNG", compress_level=1)(width, height)
        content = b"tRNS" + b"\0\1" * (3 if mode == "RGB" else 1)
        chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        return data[:-12] + chunk + data[-12:]

    return make


def _png(depth: int, colour: int, interlaced: int) -> Make:
    """Build what Pillow does not write: interlaced PNG, and 16 bits a channel."""

    def make(width: int, height: int) -> bytes:
        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        passes = (
            [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
            if interlaced
            else [(0, 0, 1, 1)]
        )
        packer = zlib.compressobj(1)
        compressed: list[bytes] = []
        for left, top, across, down in passes:
            columns, rows = -(-(width - left) // across), -(-(height - top) // down)
            line = b"\0" + b"\x55" * (-(-columns * bits // 8))
            compressed.extend(packer.compress(line * min(256, rows - begin)) for begin in range(0, rows, 256))
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
        palette = chunk(b"PLTE", bytes(range(1, 256)) * 3 + b"\1\1\1") if colour == 3 else b""
        body = chunk(b"IDAT", b"".join(compressed) + packer.flush())
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + body + chunk(b"IEND", b"")

    return make


def _variants() -> dict[str, Make]:
    made: dict[str, Make] = {}
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            for subsampling in (0, 2) if mode != "L" else (0,):
                name = f"jpeg {mode} {'progressive' if progressive else 'baseline'} subsampling {subsampling}"
                made[name] = _variant(mode, "JPEG", progressive=progressive, subsampling=subsampling)
    made["jpeg RGB turned"] = _variant("RGB", "JPEG", turn=6)
    made["jpeg RGB turned by XMP"] = _variant("RGB", "JPEG", xmp=_TURNED)
    made["jpeg L turned by XMP"] = _variant("L", "JPEG", xmp=_TURNED)
    made["jpeg RGB progressive turned"] = _variant("RGB", "JPEG", progressive=True, subsampling=0, turn=6)
    made["jpeg CMYK progressive turned"] = _variant("CMYK", "JPEG", progressive=True, subsampling=0, turn=6)
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        made[f"png {mode}"] = _variant(mode, "PNG", compress_level=1)
        made[f"png {mode} turned"] = _variant(mode, "PNG", compress_level=1, turn=6)
    made["png P transparent"] = _variant("P", "PNG", compress_level=1, transparency=3)
    made["png P transparent turned"] = _variant("P", "PNG", compress_level=1, transparency=3, turn=6)
    made["png RGB transparent"] = _variant("RGB", "PNG", compress_level=1, transparency=(1, 2, 3))
    made["png RGB transparent after its pixels"] = _transparent_late("RGB")
    made["png L transparent after its pixels"] = _transparent_late("L")
    made["png L transparent"] = _variant("L", "PNG", compress_level=1, transparency=3)
    for depth, colour in ((8, 0), (8, 2), (8, 3), (8, 4), (8, 6), (16, 0), (16, 2), (16, 4), (16, 6)):
        for interlaced in (0, 1):
            if interlaced or depth == 16:
                made[f"png colour {colour} depth {depth}{' interlaced' * interlaced}"] = _png(depth, colour, interlaced)
    for mode in ("RGB", "RGBA"):
        for lossless in (False, True):
            name = f"webp {mode} {'lossless' if lossless else 'lossy'}"
            made[name] = _variant(mode, "WEBP", lossless=lossless, method=0)
            made[f"{name} turned"] = _variant(mode, "WEBP", lossless=lossless, method=0, turn=6)
    for mode in ("P", "L"):
        made[f"gif {mode}"] = _variant(mode, "GIF")
        made[f"gif {mode} interlaced"] = _variant(mode, "GIF", interlace=1)
        made[f"gif {mode} transparent"] = _variant(mode, "GIF", transparency=3)
        made[f"gif {mode} transparent, disposed of"] = _variant(mode, "GIF", transparency=3, disposal=2)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        made[f"bmp {mode}"] = _variant(mode, "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB"):
            for strip in (65_536, 2**31 - 1):
                if compression == "raw" and strip != 65_536:
                    continue
                name = f"tiff {mode} {compression}{' one strip' * (strip > 65_536)}"
                made[name] = _variant(mode, "TIFF", compression=compression, strip_size=strip)
    made["tiff RGB lzw predictor"] = _variant("RGB", "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    made["tiff RGBA one strip turned"] = _variant(
        "RGBA", "TIFF", compression="tiff_lzw", strip_size=2**31 - 1, tiffinfo={274: 6}
    )
    for mode in ("L", "RGB", "YCbCr", "CMYK"):
        for strip in (65_536, 2**31 - 1):
            name = f"tiff {mode} jpeg{' one strip' * (strip > 65_536)}"
            made[name] = _variant(mode, "TIFF", compression="jpeg", strip_size=strip)
    for mode in ("RGB", "RGBA"):
        for planes in ("4:2:0", "4:4:4"):
            name = f"avif {mode} {planes}"
            made[name] = _variant(mode, "AVIF", subsampling=planes, speed=10, quality=50)
    grain = {"film-grain-test": "1"}
    made["avif RGB 4:4:4 film grain"] = _variant(
        "RGB", "AVIF", subsampling="4:4:4", speed=10, quality=50, codec="aom", advanced=grain
    )
    made["avif RGB turned"] = _variant("RGB", "AVIF", speed=10, quality=50, turn=6)
    for mode in ("L", "RGB", "RGBA"):
        for chroma in (420, 444) if mode != "L" else (420,):
            made[f"heic {mode} {chroma}"] = _heic(mode, chroma=chroma)
    made["heic RGB 420 tiles"] = _heic("RGB", tile_size=512)
    made["heic RGB 444 tiles"] = _heic("RGB", chroma=444, tile_size=512)
    made["heic RGB turned"] = _heic("RGB", exif=_SIDEWAYS)
    made["heic RGB turned tiles"] = _heic("RGB", exif=_SIDEWAYS, tile_size=512)
    made["heic RGB 10 bits"] = _heic_deep
    return made


VARIANTS: Mapping[str, Make] = MappingProxyType(_variants())

_CHILD = """
import json, re, sys
from pathlib import Path
from resnet_service.errors import ServiceError
from resnet_service.imaging.decode import decode
min_side = int(sys.argv[2]) or None
data = Path(sys.argv[1]).read_bytes()
def memory(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
estimates = [0]
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
try:
    decode(data, 2**30, min_side=min_side, reserve=lambda size, _: estimates.append(size))
    answer = "read"
except ServiceError as error:
    answer = error.code
print(json.dumps([answer, estimates[-1], memory("VmHWM") - before]))
"""


def growth(data: bytes, min_side: int = 0) -> tuple[str, int, int]:
    """Decode in a separate process; return answer, estimated bytes, and growth of resident memory at its peak."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = (sys.executable, "-c", _CHILD, file.name, str(min_side))
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answer, estimated, measured = json.loads(done.stdout)
    return answer, estimated, measured


def main(arguments: list[str]) -> None:
    """Print the table."""
    pixels = int(float(arguments[0]) * 1e6) if arguments else 12_000_000
    wanted = arguments[1:]
    width, height = round((pixels * 4 / 3) ** 0.5), round((pixels * 3 / 4) ** 0.5)
    print("| image | answer | estimated, MB | measured, MB | measured, bytes a pixel |\n|---|---|--:|--:|--:|")
    for name, make in VARIANTS.items():
        if wanted and not any(name.startswith(begin) for begin in wanted):
            continue
        try:
            data = make(width, height)
        except Exception as error:  # noqa: BLE001 - this build of Pillow cannot write it
            print(f"| {name} | not made: {error} | | | |")
            continue
        answer, estimated, measured = growth(data)
        mark = " LOW" * (estimated < measured) + " HIGH" * (estimated > 2.5 * measured)
        print(
            f"| {name} | {answer}{mark} | {estimated / 1e6:.0f} | {measured / 1e6:.0f} | {measured / pixels:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
