"""The format of a file, by its bytes."""

import struct

import pytest

from fuzz import bombs
from resnet_service.errors import BrokenImage, NotAnImage
from resnet_service.imaging.decode import decode
from resnet_service.imaging.formats import identify, refused_kind, with_article
from tests.support.images import encoded, noise

IMAGE = noise(64, 48)
AVIF = encoded(IMAGE, "AVIF")
# Only types and brands count here.
HEIC = AVIF.replace(b"avif", b"heic").replace(b"av01", b"hvc1")
ANIMATION = encoded(IMAGE, "AVIF", save_all=True, append_images=[IMAGE.rotate(180)])


def branded(data: bytes, major: bytes, *compatible: bytes) -> bytes:
    """Return the file with other brands. Offsets within it no longer hold."""
    return bombs._box(b"ftyp", major + bytes(4) + b"".join(compatible)) + data[struct.unpack(">I", data[:4])[0] :]


@pytest.mark.parametrize("major", [b"avif", b"mif1", b"miaf", b"msf1", b"MA1B", b"none"])
def test_avif_is_read_under_every_brand(major: bytes) -> None:
    """Its compatible brands say what it is, in a file whose bytes are otherwise those that the encoder wrote."""
    data = AVIF[:8] + major + AVIF[12:]
    assert decode(data).info == ("AVIF", 64, 48)
    animation = ANIMATION[:8] + major + ANIMATION[12:]
    assert decode(animation).info == ("AVIF", 64, 48)


def test_avif_without_a_brand_of_its_own_is_known_by_its_image() -> None:
    brands = AVIF.index(b"avif", 12)
    data = AVIF[:8] + b"mif1" + AVIF[12:brands] + b"mif1" + AVIF[brands + 4 :]
    assert decode(data).info == ("AVIF", 64, 48)


@pytest.mark.parametrize(
    ("major", "compatible"),
    [
        *((major, ()) for major in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")),
        (b"mif1", (b"mif1", b"heic", b"miaf")),
        (b"msf1", (b"mif1", b"hevc")),
        (b"heic", (b"mif1", b"avif")),
        (b"mif1", (b"miaf",)),
        (b"mif1", (b"avif", b"heic")),
        (b"miaf", ()),
    ],
)
def test_heic_is_known_under_every_brand(major: bytes, compatible: tuple[bytes, ...]) -> None:
    assert identify(branded(HEIC, major, *compatible)) == "HEIC"


def test_a_grid_without_a_brand_is_known_by_its_tiles() -> None:
    infos = b"".join(
        bombs._box(b"infe", b"\2\0\0\0" + struct.pack(">HH", number, 0) + kind + b"\0")
        for number, kind in ((1, b"grid"), (2, b"hvc1"))
    )
    iinf = bombs._box(b"iinf", struct.pack(">IH", 0, 2) + infos)
    data = bombs._within_meta(branded(HEIC, b"mif1", b"mif1"), iinf, b"iinf")
    assert identify(data) == "HEIC"
    assert identify(data.replace(b"hvc1", b"av01")) == "AVIF"


def test_heif_of_other_codings_is_named() -> None:
    data = branded(HEIC.replace(b"hvc1", b"vvc1"), b"mif1", b"mif1")
    assert identify(data) is None
    assert refused_kind(data) == "a HEIF image of unknown coding"
    with pytest.raises(NotAnImage, match="HEIF image of unknown coding"):
        decode(data)


def test_other_files_of_boxes_are_neither() -> None:
    video = branded(HEIC, b"isom", b"isom", b"mp42")
    assert identify(video) is None
    assert refused_kind(video) is None
    assert identify(b"") is None
    assert identify(b"\0\0\0\x08ftyp") is None


def test_of_endless_brands_the_first_count() -> None:
    assert identify(branded(HEIC, b"none", *[b"none"] * 63, b"heic")) == "HEIC"
    assert identify(branded(HEIC, b"none", *[b"none"] * 64, b"heic")) is None


@pytest.mark.parametrize(("name", "spoken"), [("AVIF", "an AVIF"), ("HEIC", "a HEIC"), ("JPEG", "a JPEG")])
def test_names_have_their_article(name: str, spoken: str) -> None:
    assert with_article(name) == spoken


@pytest.mark.parametrize("name", ["AVIF", "JPEG"])
def test_what_looks_like_a_format_is_named_with_its_article(name: str) -> None:
    whole = encoded(IMAGE, name)
    with pytest.raises(BrokenImage, match=f"looks like {with_article(name)} image"):
        decode(whole[: len(whole) // 2])
