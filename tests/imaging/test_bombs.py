"""Small files that would take much memory or time; `fuzz/bombs.py` creates them and measures their cost."""

import time
from pathlib import Path

import pytest
from PIL import Image

from fuzz import bombs
from resnet_service.errors import BrokenImage, ModelError, RequestError, SuspiciousModel, TooManyPixels
from resnet_service.imaging import decoder_limits
from resnet_service.imaging.decode import decode
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from tests.support.images import encoded, noise

# Without the limits, the fastest takes seconds, and the slowest did not end within minutes.
STRUCTURAL = {
    "png_of_small_chunks": "20,000 chunks",
    "png_of_small_private_chunks": "20,000 chunks",
    "png_of_small_chunks_after_the_pixels": "20,000 chunks",
    "png_of_small_idats": "20,000 chunks",
    "jpeg_of_a_million_restarts_in_its_head": "2,000 segments",
    "jpeg_of_small_segments": "2,000 segments",
    "jpeg_of_small_exifs": "2,000 segments",
    "jpeg_of_a_thousand_scans": "100 scans",
    "jpeg_of_as_many_scans_as_fit": "100 scans",
    "gif_of_small_comments": "10,000 blocks",
    "gif_of_one_comment_in_small_blocks": "10,000 blocks",
    "gif_of_small_extensions": "10,000 blocks",
    "avif_of_many_items": "bytes of tables",
    "avif_of_extents_without_bytes": "10,000 extents",
    "avif_of_many_item_infos": "bytes of tables",
    "avif_of_a_large_frame_table": "bytes of frame tables",
    "heic_of_too_many_tiles": "1,000 tiles",
    "heic_of_many_more_tiles": "bytes of tables",
    "heic_of_a_huge_grid": "its data has 4,294,836,225",
    "heic_of_a_large_canvas": "65535x65535",
    "heic_of_more_pixels_than_it_says": "16x16 pixels, but its data has 16,",
    "heic_of_many_images_in_an_item": "not one intra-coded image",
    "heic_of_overlapping_items": "overlap",
    "heic_of_many_items": "bytes of tables",
    "heic_of_extents_without_bytes": "10,000 extents",
    "heic_of_many_item_infos": "bytes of tables",
    "heic_of_unknown_coding_and_many_item_infos": "1,000 boxes",
    "heic_of_many_properties": "1,000 boxes",
    "heic_of_many_parameter_sets": "10,000 coded units",
    "tiff_of_overlapping_values": "4,096 fields",
    "tiff_of_many_fields": "4,096 fields",
    "tiff_of_many_strips": "65,536 strips",
    "tiff_of_a_large_tile": "tiles",
    "bmp_of_a_long_leap": "run-length",
    "bmp_of_single_pixels": "run-length",
    "tiff_of_fewer_overlapping_values": "overlap",
    "tiff_of_many_fractions": "numbers in its fields",
    "bmp_of_ends_of_lines": "run-length",
    "bmp_of_nibbles": "run-length",
}

# Decoder, Pillow and flattening each hold a copy of an image with the maximum of pixels.
HEAVY = {"webp_of_the_most_pixels", "heic_of_the_most_pixels"}
MEGABYTES, MEGABYTES_OF_THE_LARGEST = 110, 900
SECONDS = 10


@pytest.mark.parametrize("name", STRUCTURAL)
def test_what_is_built_to_exhaust_is_refused_at_once(name: str) -> None:
    data = bombs.IMAGES[name]()
    assert len(data) <= bombs.BODY
    begun = time.process_time()
    with pytest.raises((BrokenImage, TooManyPixels), match=STRUCTURAL[name]):
        decode(data)
    assert time.process_time() - begun < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", bombs.IMAGES)
def test_every_image_is_bounded_in_memory_and_time(name: str) -> None:
    """Each in a separate process; two minutes in all."""
    cost = bombs.measure(name)
    assert cost.answer in ("read", "broken_image", "too_many_pixels"), cost
    assert cost.seconds < SECONDS
    assert not cost.estimated < cost.megabytes  # NaN if decoding did not begin
    assert cost.megabytes < (MEGABYTES_OF_THE_LARGEST if name in HEAVY else MEGABYTES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in bombs.MODELS if name != "exported_sound"])
def test_every_model_file_is_bounded_in_memory_and_time(name: str) -> None:
    """Each in a separate process; half a minute in all."""
    cost = bombs.measure(name)
    codes = ("suspicious_model", "unreadable_model", "pickled_code", "invalid_metadata", "state_dict_mismatch")
    assert cost.answer in codes, cost
    assert cost.seconds < SECONDS
    assert cost.megabytes < MEGABYTES


@pytest.mark.slow
def test_what_the_exported_bombs_are_made_of_is_sound() -> None:
    assert bombs.measure("exported_sound").answer == "read"


@pytest.mark.parametrize("name", ["checkpoint_of_empty_lists", "checkpoint_of_empty_lists_without_a_zip"])
def test_an_index_of_more_objects_than_any_network_has_is_refused(name: str, tmp_path: Path) -> None:
    bombs.MODELS[name](tmp_path / "model.pth")
    with pytest.raises(SuspiciousModel, match="1,000,000 pickle opcodes"):
        load_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "name", ["checkpoint_with_a_doubling_value", "checkpoint_with_a_doubling_key", "checkpoint_with_a_doubling_weight"]
)
def test_values_within_values_are_refused_without_being_printed(name: str, tmp_path: Path) -> None:
    bombs.MODELS[name](tmp_path / "model.pth")
    with pytest.raises(ModelError) as caught:
        load_checkpoint(tmp_path / "model.pth")
    assert len(str(caught.value)) < 1000


def test_honest_files_stay_far_below_the_limits() -> None:
    large = noise(600, 400)
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    for data in (
        encoded(large, "JPEG", progressive=True, quality=95, icc_profile=bytes(600_000), exif=exif),
        encoded(large, "PNG", icc_profile=bytes(60_000)),
        encoded(large, "GIF", comment=b"x" * 100_000, save_all=True, append_images=[large.rotate(90)] * 3),
        encoded(large, "TIFF", compression="tiff_lzw"),
        encoded(large, "AVIF", save_all=True, append_images=[large.rotate(90)] * 3, speed=10, exif=exif),
    ):
        assert decode(data).info.width == 600


def test_a_tile_may_be_larger_than_a_small_image() -> None:
    # Image viewers write tiles of 256 or 512 pixels, whatever the image's size.
    side = 512
    entries = {**bombs._grey(20, 10), 322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, 8), 325: (4, 1, side**2)}
    assert decode(bombs._tiff(entries, bytes(side**2))).info.width == 20


@pytest.mark.parametrize("scans", [decoder_limits.MAX_SCANS - 1, decoder_limits.MAX_SCANS])
def test_scans_are_counted_to_the_last(scans: int) -> None:
    data = bombs._progressive(64, 64, scans)  # and the first one
    if scans < decoder_limits.MAX_SCANS:
        assert decode(data).info.width == 64
    else:
        with pytest.raises(BrokenImage, match="scans"):
            decode(data)


def test_what_looks_like_scans_behind_the_image_does_not_count() -> None:
    """Phones append a video to a photograph."""
    assert decode(encoded(noise(64, 64), "JPEG") + b"\xff\xda" * 1000).info.width == 64


def test_run_lengths_of_a_usual_size_are_read() -> None:
    row = b"\xff\x11\x01\x22\0\0"
    assert decode(bombs._bmp(256, 256, 1, row * 256 + b"\0\1")).info.width == 256


def test_the_pixels_of_an_animation_are_one_frame() -> None:
    """Of 10 MB of frames, only the first is decoded."""
    for name in ("gif_of_many_frames", "webp_of_many_frames", "webp_of_as_many_frames_as_fit", "avif_of_many_frames"):
        data = bombs.IMAGES[name]()
        begun = time.process_time()
        assert decode(data).image.size in ((2, 2), (16, 16))
        assert time.process_time() - begun < 1


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "AVIF"])
def test_the_walk_ends_wherever_the_file_does(format_: str) -> None:
    whole = encoded(noise(16, 16), format_)
    for length in range(16, len(whole)):
        try:
            decoder_limits.check_file(whole[:length], format_)
        except RequestError as error:
            raise AssertionError(f"{length} bytes of {len(whole)} are refused as exhausting") from error
