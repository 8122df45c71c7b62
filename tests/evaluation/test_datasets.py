import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_service.errors import InvalidDataset, UnknownClass
from resnet_service.evaluation.datasets import open_dataset, open_images, read_idx
from resnet_service.imaging.decode import decode
from resnet_service.models.labels import LabelSet
from tests.support.images import encoded, noise

PETS = LabelSet.parse(
    json.dumps(
        {
            "name": "pets",
            "classes": [{"index": 0, "id": "n1", "name": "cat"}, {"index": 1, "id": "n2", "name": "dog/wolf"}],
        }
    ).encode(),
    Path("pets.json"),
)
IMAGE = encoded(noise(8, 8), "PNG")


def folders(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(IMAGE)
    return root


def idx(pixels: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, pixels.ndim]) + b"".join(side.to_bytes(4, "big") for side in pixels.shape)
    return header + pixels.astype(np.uint8).tobytes()


def test_folders_are_named_after_classes_or_their_ids(tmp_path: Path) -> None:
    dataset = open_dataset(folders(tmp_path / "mine", "cat/b.png", "cat/a.png", "n2/c.png", "cat/.hidden"), PETS)
    assert dataset.name == "mine"
    assert [(sample.name, sample.class_id) for sample in dataset.samples] == [
        ("cat/a.png", 0),
        ("cat/b.png", 0),
        ("n2/c.png", 1),
    ]
    assert dataset.samples[0].read() == IMAGE


def test_a_csv_names_paths_relative_to_itself(tmp_path: Path) -> None:
    folders(tmp_path, "images/a.png")
    (tmp_path / "list.csv").write_text("label,path\ncat,images/a.png\ndog/wolf,images/missing.png\n")
    dataset = open_dataset(tmp_path / "list.csv", PETS)
    assert [(sample.name, sample.class_id) for sample in dataset.samples] == [
        ("images/a.png", 0),
        ("images/missing.png", 1),
    ]
    assert dataset.samples[0].read() == IMAGE


@pytest.mark.parametrize("compressed", [True, False])
def test_fashion_mnist_files(tmp_path: Path, compressed: bool) -> None:
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
    for name, content in (("images-idx3", images), ("labels-idx1", np.array([1, 0, 1]))):
        path = tmp_path / f"t10k-{name}-ubyte{'.gz' if compressed else ''}"
        path.write_bytes(gzip.compress(idx(content)) if compressed else idx(content))
    dataset = open_dataset(tmp_path, PETS)
    assert [sample.class_id for sample in dataset.samples] == [1, 0, 1]
    assert np.array_equal(np.asarray(decode(dataset.samples[2].read()).image)[..., 0], images[2])


def test_the_digest_covers_images_and_classes_but_not_file_names(tmp_path: Path) -> None:
    first = open_dataset(folders(tmp_path / "a", "cat/1.png", "n2/2.png"), PETS).sha256
    assert open_dataset(folders(tmp_path / "b", "n1/x.png", "dog/../n2/y.png"), PETS).sha256 == first
    assert open_dataset(folders(tmp_path / "c", "cat/1.png", "cat/2.png"), PETS).sha256 != first
    Image.new("L", (1, 1)).save(tmp_path / "a" / "cat" / "1.png")
    assert open_dataset(tmp_path / "a", PETS).sha256 != first


def test_the_error_of_an_unknown_class_suggests_similar_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownClass, match=r"'cats'.*Similar: cat"):
        open_dataset(folders(tmp_path, "cats/a.png"), PETS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"path,label\n", "empty"),
        (b"file,class\na,b\n", "needs the columns path and label"),
        (b"path,label\na.png,\n", "line 2"),
        (b"path,label\na.png\n", "line 2"),
        (b"path,label\n\xff\xff,cat\n", "UTF-8"),
    ],
)
def test_malformed_csv(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InvalidDataset, match=message):
        open_dataset(tmp_path / "list.csv", PETS)


def test_messages_say_what_calibration_takes(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"^There is no .*nothing\. Give a folder of images, a folder with one"):
        open_images(tmp_path / "nothing", PETS)
    with pytest.raises(InvalidDataset, match="is empty"):
        open_images(tmp_path, PETS)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "image.png").touch()
    with pytest.raises(UnknownClass, match=r"'sub'.* put them in one folder\."):
        open_images(tmp_path, PETS)


def test_images_without_folders_of_classes_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    with pytest.raises(InvalidDataset, match=r"no folders of classes.*Give a folder with one folder per class"):
        open_dataset(tmp_path, PETS)


def test_other_paths_are_not_data_sets(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"^There is no .*nothing\. Give a folder with one folder per class"):
        open_dataset(tmp_path / "nothing", PETS)
    with pytest.raises(InvalidDataset, match="empty"):
        open_dataset(tmp_path, PETS)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InvalidDataset, match="empty"):
        open_dataset(tmp_path, PETS)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\1\0", idx(np.zeros((2, 2)))[:-1], idx(np.zeros(2)) + b"x", b"\0\0\x08\xff"],
)
def test_malformed_idx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidDataset, match="file"):
        read_idx(tmp_path / "file")
    (tmp_path / "file.gz").write_bytes(gzip.compress(b"x" * 100)[:-9])
    with pytest.raises(InvalidDataset, match="cannot be read"):
        read_idx(tmp_path / "file.gz")


def test_inconsistent_fashion_mnist_files(tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 28, 28))))
    with pytest.raises(InvalidDataset, match="labels"):
        open_dataset(tmp_path, PETS)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(3)))
    with pytest.raises(InvalidDataset, match="do not match labels"):
        open_dataset(tmp_path, PETS)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 2])))
    with pytest.raises(UnknownClass, match="class 2"):
        open_dataset(tmp_path, PETS)
