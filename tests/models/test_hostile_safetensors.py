"""Safetensors files that try to exhaust resources, to read beyond themselves or to mislead; each ends in one sentence.

The format has no checksum. In a file that carries no digest, a bit that flips in a weight and leaves it finite goes
unnoticed.
"""

import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_service.errors import (
    InvalidMetadata,
    ModelError,
    NonFiniteWeights,
    StateDictMismatch,
    SuspiciousModel,
    UnreadableModel,
)
from resnet_service.models.checkpoint import safetensors
from resnet_service.models.checkpoint.arrays import MAX_TENSORS
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.checkpoint.weights import read_weights
from resnet_service.models.metadata import METADATA_KEY
from tests.support.models import metadata
from tests.support.servers import cli

SECONDS = 1.0
MEGABYTES = 200  # above what the interpreter holds; the largest file here has 72

OWN = {METADATA_KEY: metadata().model_dump_json()}


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def made(data: bytes = bytes(8), author: Any = OWN, /, **tensors: Any) -> bytes:
    """Build a file; without ``tensors``, with one that is in order."""
    return raw(json.dumps({"__metadata__": author, **(tensors or {"fc.bias": entry()})}).encode(), data)


def many_keys() -> bytes:
    return raw(
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,4]}' % n for n in range(10**6)) + b"}"
    )


def many_short_keys() -> bytes:
    """As many as fit into the largest header."""
    return raw(b"{" + b",".join(b'"%x":1' % number for number in range(450_000)) + b"}")


def flat(values: int) -> bytes:
    return b'{"x":[' + b"[]," * values + b"[]]}"


ONES = np.ones(2, np.float32)
NAN = np.array([1, np.nan], np.float32).tobytes()
INFINITE_BF16 = np.array([0x3F80, 0x7F80], np.uint16).tobytes()

ATTACKS: dict[str, tuple[Callable[[], bytes], type[ModelError], str]] = {
    "length of 2^63": (lambda: raw(b"{}", length=2**63), UnreadableModel, "9,223,372,036,854,775,808 bytes"),
    "length of 2^64 - 1": (lambda: raw(b"{}", length=2**64 - 1), UnreadableModel, "declares a header"),
    "length beyond the file": (lambda: raw(b"{}" + bytes(50), length=100), UnreadableModel, "declares a header"),
    "length of zero": (lambda: raw(b"", bytes(20)), UnreadableModel, "not JSON"),
    "header of 20 MB": (lambda: raw(b'{"a":1}'.ljust(20_000_000)), SuspiciousModel, "the limit is 5,000,000"),
    "nothing but a length": (lambda: bytes(8), UnreadableModel, "too short"),
    "truncated header": (lambda: made()[:60], UnreadableModel, "declares a header"),
    "truncated data": (lambda: made()[:-1], UnreadableModel, "beyond the end of the file"),
    "data that no tensor has": (lambda: made(bytes(9)), UnreadableModel, "8 bytes of weights, and it has 9"),
    "overlapping tensors": (
        lambda: made(bytes(12), a=entry(), b=entry(offsets=(4, 12))),
        SuspiciousModel,
        "overlap at b",
    ),
    "two tensors on the same bytes": (lambda: made(a=entry(), b=entry()), SuspiciousModel, "overlap at b"),
    "a gap between tensors": (
        lambda: made(bytes(20), a=entry(), b=entry(offsets=(12, 20))),
        SuspiciousModel,
        "leave a gap at b",
    ),
    "a gap before all tensors": (
        lambda: made(bytes(12), a=entry(offsets=(4, 12))),
        SuspiciousModel,
        "leave a gap at a",
    ),
    "negative offsets": (lambda: made(a=entry(offsets=(-8, 0))), UnreadableModel, "no valid data_offsets"),
    "offsets in the wrong order": (lambda: made(a=entry(shape=(), offsets=(8, 0))), UnreadableModel, "data_offsets"),
    "three offsets": (lambda: made(a=entry(offsets=(0, 8, 8))), UnreadableModel, "data_offsets"),
    "offsets with fractions": (lambda: made(a=entry(offsets=(0.0, 8.0))), UnreadableModel, "data_offsets"),
    "offsets that are booleans": (
        lambda: made(bytes(1), a=entry(shape=(), offsets=(False, True))),
        UnreadableModel,
        "data_offsets",
    ),
    "an offset of 5,000 digits": (
        lambda: raw(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,%s]}}' % (b"9" * 5000)),
        UnreadableModel,
        "not JSON",
    ),
    "a million keys": (many_keys, SuspiciousModel, "the limit is 5,000,000"),
    "keys to the limit of the header": (many_short_keys, SuspiciousModel, "450,000 tensors; the limit is 20,000"),
    "20,001 tensors": (
        lambda: made(**{str(number): entry() for number in range(MAX_TENSORS + 1)}),
        SuspiciousModel,
        "20,001 tensors",
    ),
    "the same name twice": (
        lambda: raw(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            bytes(8),
        ),
        SuspiciousModel,
        "appears twice",
    ),
    "the same key twice in a tensor": (
        lambda: raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        SuspiciousModel,
        "appears twice",
    ),
    "the same key twice in the metadata": (
        lambda: made(bytes(8), {METADATA_KEY: '{"arch": "resnet18", "arch": "resnet34"}'}),
        InvalidMetadata,
        "the metadata are not valid: a name appears twice",
    ),
    "deep nesting": (lambda: raw(b'{"a":' + b"[" * 70_000 + b"]" * 70_000 + b"}"), UnreadableModel, "not JSON"),
    "deeper nesting": (lambda: raw(b'{"a":' + b"[" * 500_000), SuspiciousModel, "more lists and objects"),
    "deep nesting in the metadata": (
        lambda: made(bytes(8), {METADATA_KEY: "[" * 70_000}),
        InvalidMetadata,
        "the metadata are not JSON",
    ),
    "a million empty lists": (lambda: raw(flat(1_500_000)), SuspiciousModel, "more lists and objects than 20,000 ten"),
    "two million dimensions": (
        lambda: raw(b'{"a":{"dtype":"F32","data_offsets":[0,8],"shape":[' + b"1," * 2_000_000 + b"2]}}", bytes(8)),
        UnreadableModel,
        "no valid shape",
    ),
    "a list instead of a header": (lambda: raw(b"[]"), UnreadableModel, "not a JSON object"),
    "no tensors": (lambda: raw(b"{}"), UnreadableModel, "no weights"),
    "a tensor that is a number": (lambda: made(a=3), UnreadableModel, "a is not described by"),
    "a tensor with another key": (lambda: made(a={**entry(), "file": "/x"}), UnreadableModel, "a is not described by"),
    "a tensor without a shape": (lambda: made(a={"dtype": "F32"}), UnreadableModel, "a is not described by"),
    "an unknown type": (lambda: made(a=entry("F8_E4M3", shape=(8,))), StateDictMismatch, "'F8_E4M3'; only F64, F32"),
    "a type that is no name": (lambda: made(a=entry([1])), StateDictMismatch, "has the type"),
    "a shape of another size": (lambda: made(a=entry(shape=(3,))), UnreadableModel, "another size than its data"),
    "a shape of 2^40 x 2^40": (lambda: made(a=entry(shape=(2**40, 2**40))), UnreadableModel, "another size"),
    # Its product is 2 if it is computed in 64 bits.
    "a shape that wraps around": (lambda: made(a=entry(shape=(2**63 + 1, 2))), UnreadableModel, "another size"),
    "a shape with zero": (
        lambda: made(a=entry(), b=entry(shape=(0, 2**62, 2**62), offsets=(8, 8))),
        UnreadableModel,
        "b has no valid shape",
    ),
    "a negative shape": (lambda: made(a=entry(shape=(-1, -2))), UnreadableModel, "no valid shape"),
    "a shape that is text": (lambda: made(a=entry(shape="2")), UnreadableModel, "no valid shape"),
    "NaN among the weights": (lambda: made(NAN), NonFiniteWeights, r"NaN or infinity in fc\.bias"),
    "infinity in BF16": (
        lambda: made(INFINITE_BF16, a=entry("BF16", offsets=(0, 4))),
        NonFiniteWeights,
        "NaN or infinity in a",
    ),
    "a float64 beyond float32": (
        lambda: made(np.array([1e300]).tobytes(), a=entry("F64", shape=(1,))),
        NonFiniteWeights,
        "NaN or infinity in a",
    ),
    "NaN in the header": (lambda: raw(b'{"a":NaN}'), SuspiciousModel, "a number is NaN"),
    "invalid UTF-8": (lambda: raw(b'{"\xff\xfe":1}'), UnreadableModel, "not JSON"),
    "a lone surrogate in a name": (lambda: raw(b'{"\\ud800":1}'), SuspiciousModel, "not printable"),
    "a line break in a name": (lambda: made(**{"a\nerror: b": entry()}), SuspiciousModel, "not printable"),
    "a terminal's control codes in a name": (lambda: made(**{"\x1b[2J": entry()}), SuspiciousModel, "not printable"),
    "a name of a megabyte": (lambda: made(**{"a" * 2**20: entry()}), SuspiciousModel, "longer than 300"),
    "metadata that are no strings": (lambda: made(bytes(8), {"x": 1}), UnreadableModel, "values other than strings"),
    "metadata that are a list": (lambda: made(bytes(8), ["x"]), UnreadableModel, "values other than strings"),
    "our metadata as a list": (lambda: made(bytes(8), {METADATA_KEY: "[]"}), InvalidMetadata, "are not a JSON object"),
    "our metadata as text": (
        lambda: made(bytes(8), {METADATA_KEY: "resnet18"}),
        InvalidMetadata,
        "metadata are not JSON",
    ),
    "our metadata with a surrogate": (
        lambda: made(bytes(8), {METADATA_KEY: "\ud800"}),
        InvalidMetadata,
        "metadata are not JSON",
    ),
    "our metadata with unknown keys": (
        lambda: made(bytes(8), {METADATA_KEY: '{"arch": "resnet18", "epoch": 3}'}),
        InvalidMetadata,
        "keys that no checkpoint has: epoch",
    ),
    "our metadata, incomplete": (
        lambda: made(bytes(8), {METADATA_KEY: '{"arch": "resnet18"}'}),
        InvalidMetadata,
        "num_cl",
    ),
}


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, type[ModelError], str]:
    build, error, words = ATTACKS[request.param]
    path = tmp_path / "evil.safetensors"
    path.write_bytes(build())
    return path, error, words


def test_the_file_is_refused_in_one_sentence_and_in_time(attack: tuple[Path, type[ModelError], str]) -> None:
    path, error, words = attack
    begun = time.process_time()
    with pytest.raises(error, match=words) as caught:
        read_weights(path)
    assert time.process_time() - begun < SECONDS
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    assert "evil.safetensors" in message
    with pytest.raises(error, match=words):
        load_checkpoint(path)


def test_the_file_takes_little_memory(attack: tuple[Path, type[ModelError], str]) -> None:
    path, error, _ = attack
    tracemalloc.start()
    try:
        with pytest.raises(error):
            read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < MEGABYTES * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_the_server_ends_with_one_line(attack: tuple[Path, type[ModelError], str]) -> None:
    done = cli("serve", "--checkpoint", attack[0], "--port", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_attacks_differ_from_a_sound_file_in_one_thing_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.safetensors"
    path.write_bytes(made(ONES.tobytes()))
    assert read_weights(path).state["fc.bias"].tolist() == [1, 1]


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    state = {"fc.bias": ONES, "fc.weight": np.ones((2, 3), np.float32)}
    data = safetensors.dump_arrays(metadata().model_dump(mode="json"), state)
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert read_weights(path).state["fc.bias"].tolist() == [1, 1]
    # Under another name, the digest is a string that means nothing; 1.1.0 wrote files without one.
    name = data.index(safetensors.DIGEST_KEY.encode())
    for position in set(range(len(data))) - set(range(name, name + len(safetensors.DIGEST_KEY))):
        flipped = bytearray(data)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ModelError):
            read_weights(path)


def test_without_a_digest_a_flipped_bit_in_a_weight_goes_unnoticed(tmp_path: Path) -> None:
    """Files of other libraries: only NaN and infinity are noticed. The digest of the file differs, as it must."""
    sound, flipped = tmp_path / "sound.safetensors", tmp_path / "flipped.safetensors"
    data = bytearray(made(ONES.tobytes()))
    sound.write_bytes(data)
    data[-2] ^= 1  # of the fraction
    flipped.write_bytes(data)
    before, after = read_weights(sound), read_weights(flipped)
    assert before.state["fc.bias"].tolist() != after.state["fc.bias"].tolist()
    assert before.sha256 != after.sha256
    data[-1] ^= 0x40  # of the exponent: 1.0 becomes infinity or NaN
    flipped.write_bytes(data)
    with pytest.raises(NonFiniteWeights):
        read_weights(flipped)
