"""Class names in other languages: complete, and matched to their label set by its digest."""

import json
import re
from pathlib import Path

import pytest

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet, LabelDigestMismatch
from resnet_service.models.label_translations import translations_beside
from resnet_service.models.labels import LabelFile, label_file_for, read_label_set
from tests.support.models import metadata
from tests.support.servers import REPOSITORY

LABELS = REPOSITORY / "labels"
# Chinese names with Latin letters.
LATIN = {"CD", "iPod", "T"}


def label_file(path: Path) -> LabelFile:
    labels, reference = read_label_set(path)
    return LabelFile(path, labels, reference.sha256)


def pets(folder: Path, **changes: object) -> LabelFile:
    """Write a label set of two classes, and beside it a translation with ``changes``."""
    classes = [{"index": index, "name": name} for index, name in enumerate(("cat", "dog"))]
    (folder / "pets.json").write_text(json.dumps({"name": "pets", "classes": classes}))
    file = label_file(folder / "pets.json")
    translation = {"language": "zh", "translates": {"name": "pets", "sha256": file.sha256}, "names": ["猫", "狗"]}
    (folder / "pets.zh.json").write_text(json.dumps({**translation, **changes}))
    return file


@pytest.mark.parametrize(
    "path", sorted(set(LABELS.glob("*.json")) - set(LABELS.glob("*.zh.json"))), ids=lambda p: p.stem
)
def test_every_label_set_has_all_its_names_in_chinese(path: Path) -> None:
    file = label_file(path)
    names = translations_beside(file)["zh"]
    assert len(names) == len(file.labels)
    assert len(set(names)) == len(names), "two classes have the same Chinese name"
    for name in names:
        assert name == name.strip()
        assert set(re.findall("[A-Za-z]+", name)) <= LATIN, name
        assert re.search("[\u3400-\u9fff]", name) or name in LATIN, name


@pytest.mark.parametrize(
    ("index", "english", "chinese"),
    [
        *[(0, "tench", "丁鱥"), (134, "crane bird", "鹤"), (281, "tabby", "虎斑猫"), (387, "lesser panda", "小熊猫")],
        *[
            (388, "giant panda", "大熊猫"),
            (517, "crane", "起重机"),
            (620, "laptop", "手提电脑"),
            (673, "mouse", "鼠标"),
        ],
        *[(638, "maillot", "紧身连体衣"), (639, "maillot tank suit", "连体泳衣"), (714, "pick", "拨片")],
        *[(726, "plane", "木工刨"), (856, "thresher", "脱粒机"), (967, "espresso", "浓缩咖啡"), (998, "ear", "玉米穗")],
        (999, "toilet tissue", "卫生纸"),
    ],
)
def test_names_are_in_the_order_of_the_set(index: int, english: str, chinese: str) -> None:
    """A sample of the whole list, including English words with two meanings."""
    file = label_file(LABELS / "imagenet1k.json")
    assert (file.labels.classes[index].name, translations_beside(file)["zh"][index]) == (english, chinese)


def test_a_custom_set_has_its_own_translation(tmp_path: Path) -> None:
    assert translations_beside(pets(tmp_path)) == {"zh": ("猫", "狗")}
    (tmp_path / "pets.zh.json").unlink()
    assert translations_beside(label_file(tmp_path / "pets.json")) == {}


def test_a_translation_is_found_beside_its_label_set(tmp_path: Path) -> None:
    file = pets(tmp_path)
    found = label_file_for(metadata(num_classes=2), tmp_path / "model.pth", file.path)
    assert found is not None
    assert translations_beside(found) == {"zh": ("猫", "狗")}


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"names": ["猫"]}, ClassCountMismatch, "has 1 names, but .* has 2 classes"),
        ({"names": ["猫", ""]}, InvalidLabelSet, "names.1"),
        ({"names": None}, InvalidLabelSet, "names"),
        ({"language": "en"}, InvalidLabelSet, "says language 'en', but its name says 'zh'"),
        ({"language": "tlh"}, InvalidLabelSet, "language"),
        (
            {"translates": {"name": "pets", "sha256": "0" * 64}},
            LabelDigestMismatch,
            "another label set than .*pets.json",
        ),
        ({"more": 1}, InvalidLabelSet, "more"),
    ],
)
def test_a_wrong_translation_is_refused(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], named: str
) -> None:
    file = pets(tmp_path, **changes)
    with pytest.raises(error, match=named):
        translations_beside(file)


def test_an_unreadable_translation_is_refused(tmp_path: Path) -> None:
    file = pets(tmp_path)
    (tmp_path / "pets.zh.json").unlink()
    (tmp_path / "pets.zh.json").mkdir()
    with pytest.raises(InvalidLabelSet, match="cannot be read: Is a directory"):
        translations_beside(file)
