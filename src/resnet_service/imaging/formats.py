"""Image formats: those that are decoded, and those that are refused by name."""

from resnet_service.imaging.isobmff import brands, item_types, meta_box, primary_item

# (offset, bytes) of each decoded format's signature, by Pillow's name; file names and declared types are ignored. AVIF
# is known by its brands.
SIGNATURES: dict[str, tuple[tuple[int, bytes], ...]] = {
    "JPEG": ((0, b"\xff\xd8\xff"),),
    "PNG": ((0, b"\x89PNG\r\n\x1a\n"),),
    "WEBP": ((8, b"WEBP"),),
    "GIF": ((0, b"GIF87a"), (0, b"GIF89a")),
    "BMP": ((0, b"BM"),),
    "TIFF": ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
    "AVIF": (),
}

# Those that need no extra.
ACCEPTED_FORMATS = tuple(SIGNATURES)

# Decoded only where the extra `heic` is installed.
HEIC = "HEIC"

# HEIF (ISO/IEC 23008-12) is a container. These are the brands of files whose images are coded in AV1, in HEVC, and in
# either. The last are told apart by the type of the primary item, or of its tiles.
_AV1_BRANDS = {b"avif", b"avis"}
_HEVC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_HEIF_BRANDS = {b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"MiHB", b"MiHA", b"MiHE", b"MA1A", b"MA1B"}
_ITEMS = {b"av01": "AVIF", b"hvc1": HEIC, b"hev1": HEIC}

# Formats that clients send by mistake; an error that names the format helps more than "not an image".
REFUSED_BY_NAME = (
    (0, b"%PDF", "a PDF document"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML or SVG file"),
    (0, b"<!DOCTYPE", "an HTML page"),
    (0, b"<html", "an HTML page"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (16, b"ftypjph ", "a High-Throughput JPEG 2000 image"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
)

HEIC_ADVICE = (
    "This is a HEIC image, which this service cannot read without its extra 'heic'. Convert it to JPEG, or ask the "
    "operator to install the extra."
)


def identify(data: bytes) -> str | None:
    """Return the format of an image by its first bytes: one of ``ACCEPTED_FORMATS``, ``HEIC``, or ``None``.

    Raises:
        BrokenImage: A HEIF file of unclear coding has more boxes than any valid file.

    """
    for name, signatures in SIGNATURES.items():
        if any(data.startswith(magic, offset) for offset, magic in signatures):
            return name
    return _coding(data)


def refused_kind(data: bytes) -> str | None:
    """Return what a file is that is not decoded, with its article, if it can be told."""
    if _HEIF_BRANDS.intersection(brands(data)):
        return "a HEIF image of unknown coding"
    return next((what for offset, magic, what in REFUSED_BY_NAME if data.startswith(magic, offset)), None)


def with_article(name: str) -> str:
    """Return the format's name after "a" or "an", as it is spoken."""
    return f"{'an' if name.startswith('A') else 'a'} {name}"


def _coding(data: bytes) -> str | None:
    """Return the format of a HEIF file: by its major brand, by all brands, or by its primary item."""
    listed = brands(data)
    for named in ({*listed[:1]}, {*listed}):
        formats = [name for name, known in (("AVIF", _AV1_BRANDS), (HEIC, _HEVC_BRANDS)) if named & known]
        if len(formats) == 1:
            return formats[0]
    if not named & (_AV1_BRANDS | _HEVC_BRANDS | _HEIF_BRANDS) or (meta := meta_box(data)) is None:
        return None
    types = dict(item_types(data, *meta))
    kind = types.get(primary_item(data, *meta) or 0, b"")
    return _ITEMS.get(kind) or next((_ITEMS[tile] for tile in types.values() if tile in _ITEMS), None)
