import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet, LabelDigestMismatch
from resnet_service.export.export import export
from resnet_service.inference.classifier import Classifier
from resnet_service.models.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from resnet_service.models.labels import SHIPPED, LabelSet, label_file_for, labels_for, read_label_set
from tests.support.models import metadata, random_model
from tests.support.servers import REPOSITORY


def write(path: Path, *names: str, **changes: Any) -> Path:
    classes = [{"index": index, "name": name} for index, name in enumerate(names)]
    path.write_text(json.dumps({"name": path.stem, "classes": classes, **changes}))
    return path


def test_imagenet_has_1000_classes_with_wordnet_ids() -> None:
    labels, _ = read_label_set(REPOSITORY / "labels" / "imagenet1k.json")
    assert len(labels) == 1000
    assert (labels.classes[281].id, labels.classes[281].name) == ("n02123045", "tabby")
    assert len({label.id for label in labels.classes}) == len({label.name for label in labels.classes}) == 1000


@pytest.mark.parametrize("text", ["cat\ndog\n", '["cat", "dog"]', '{"cat": 0, "dog": 1}'])
def test_for_other_forms_of_names_convert_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(
        InvalidLabelSet, match=r"is not a label set\. .* resnet-service convert .* --labels .*names\.txt$"
    ):
        read_label_set(tmp_path / "names.txt")


def test_a_name_that_no_reference_can_have_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidLabelSet, match=r"has the name 'my pets'\. Give it one of letters"):
        read_label_set(write(tmp_path / "pets.json", "cat", "dog", name="my pets"))


def test_found_beside_the_model_and_checked(tmp_path: Path) -> None:
    _, reference = read_label_set(write(tmp_path / "pets.json", "cat", "dog"))
    facts = metadata(num_classes=2, labels=reference)
    assert [label.name for label in labels_for(facts, tmp_path / "model.pth").classes] == ["cat", "dog"]


def test_found_in_the_labels_folder_next_to_the_models(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    _, reference = read_label_set(write(tmp_path / "labels" / "pets.json", "cat", "dog"))
    assert len(labels_for(metadata(num_classes=2, labels=reference), tmp_path / "checkpoints" / "model.pth")) == 2


def test_an_edited_set_is_refused(tmp_path: Path) -> None:
    _, reference = read_label_set(write(tmp_path / "pets.json", "cat", "dog"))
    write(tmp_path / "pets.json", "dog", "cat")
    with pytest.raises(LabelDigestMismatch, match=reference.sha256):
        labels_for(metadata(num_classes=2, labels=reference), tmp_path / "model.pth")


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pets.json", "cat", "dog")
    with pytest.raises(ClassCountMismatch, match=r"2 classes, but .* has 10"):
        labels_for(metadata(), tmp_path / "model.pth", path)


def test_the_error_of_a_missing_set_names_the_folders(tmp_path: Path) -> None:
    _, reference = read_label_set(write(tmp_path / "pets.json", "cat", "dog"))
    with pytest.raises(InvalidLabelSet, match=r"no pets\.json in .*elsewhere"):
        labels_for(metadata(num_classes=2, labels=reference), tmp_path / "elsewhere" / "model.pth")


def test_without_a_set_classes_are_numbered(tmp_path: Path) -> None:
    assert labels_for(metadata(num_classes=2), tmp_path / "model.pth") == LabelSet.numbered(2)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "names are read by convert"),
        (b"\xff\xfe", "names are read by convert"),
        (b"[]", "names are read by convert"),
        (b'{"name": "x", "classes": []}', "classes"),
        (b'{"name": "x", "classes": [{"index": 1, "name": "a"}]}', "count up from 0"),
        (b'{"name": "x", "classes": [{"index": 0, "name": ""}]}', "classes.0.name"),
        (b'{"name": "x", "classes": [{"index": 0, "name": "a"}], "more": 1}', "more"),
    ],
)
def test_malformed_sets_are_refused(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    with pytest.raises(InvalidLabelSet, match=named):
        read_label_set(path)


def test_an_unreadable_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidLabelSet, match="No such file"):
        read_label_set(tmp_path / "nothing.json")


def with_own_labels(folder: Path) -> Path:
    """Write a checkpoint of three classes beside its label set, and return it."""
    _, reference = read_label_set(write(folder / "pets.json", "cat", "dog", "owl"))
    path = folder / "model.safetensors"
    save_checkpoint(random_model(num_classes=3), path, metadata(num_classes=3, labels=reference))
    return path


def test_an_exported_model_carries_the_names_of_its_classes(tmp_path: Path) -> None:
    """It is copied to another machine, without the file of its label set."""
    (tmp_path / "there").mkdir()
    export(with_own_labels(tmp_path), tmp_path / "there" / "model.onnx")
    (tmp_path / "pets.json").unlink()
    served = Classifier.open(tmp_path / "there" / "model.onnx").model
    assert served.labels.name == "pets"
    assert [label.name for label in served.labels.classes] == ["cat", "dog", "owl"]


def test_a_checkpoint_carries_the_names_of_its_classes(tmp_path: Path) -> None:
    path = with_own_labels(tmp_path)
    write(tmp_path / "pets.json", "another", "set")
    loaded = load_checkpoint(path)
    assert loaded.metadata.class_names == ("cat", "dog", "owl")
    assert [label.name for label in labels_for(loaded.metadata, path).classes] == ["cat", "dog", "owl"]


def test_the_file_of_the_label_set_gives_ids_and_translations(tmp_path: Path) -> None:
    path = with_own_labels(tmp_path)
    found = label_file_for(load_checkpoint(path).metadata, path)
    assert found is not None
    assert found.path == tmp_path / "pets.json"


def test_the_sets_of_this_package_are_not_carried(tmp_path: Path) -> None:
    assert {path.stem for path in (REPOSITORY / "labels").glob("*.json") if "." not in path.stem} == {*SHIPPED}
    _, reference = read_label_set(REPOSITORY / "labels" / "fashion-mnist.json")
    save_checkpoint(random_model(), tmp_path / "model.pth", metadata(labels=reference))
    assert load_checkpoint(tmp_path / "model.pth").metadata.class_names is None


@pytest.mark.parametrize("names", [["cat"], ["cat", "\x1b[2Jdog"], ["cat", ""], ["cat", "a\nb"]])
def test_names_that_do_not_fit_are_refused(names: list[str]) -> None:
    with pytest.raises(ValidationError):
        metadata(num_classes=2, class_names=names)
