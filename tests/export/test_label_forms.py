"""Names of classes in the forms in which people keep them."""

import json
from pathlib import Path
from typing import Any

import pytest

from resnet_service.errors import InvalidLabelSet
from resnet_service.export.conversion.label_forms import is_label_set, parse_label_forms

FILE = Path("names.txt")
NAMES = ["cat", "dog", "Eule"]
FORMS = {
    "lines": "cat\ndog\nEule\n",
    "lines of Windows, with a mark": "\ufeffcat\r\ndog\r\nEule\r\n\r\n",
    "a list": json.dumps(NAMES),
    "index to name": json.dumps({"0": "cat", "1": "dog", "2": "Eule"}),
    "index to name, in disorder": json.dumps({"2": "Eule", "0": "cat", "1": "dog"}),
    "name to index": json.dumps({"dog": 1, "cat": 0, "Eule": 2}),
    "a configuration of Hugging Face": json.dumps(
        {"architectures": ["ResNet"], "id2label": {"0": "cat", "1": "dog", "2": "Eule"}, "label2id": {"cat": 0}}
    ),
    "classes": json.dumps({"classes": NAMES}),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_each_form_gives_the_label_set(text: str) -> None:
    assert not is_label_set(text.encode())
    labels = parse_label_forms(text.encode(), FILE, "mine")
    assert [one.name for one in labels.classes] == NAMES
    assert (labels.name, [one.index for one in labels.classes]) == ("mine", [0, 1, 2])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"idx_to_class": {"0": 1, "1": 2, "2": 0}}, ["1", "2", "0"]),
        ({"class_to_idx": {"0": 1, "1": 2, "2": 0}}, ["2", "0", "1"]),
        ({"id2label": {"0": 1, "1": 0}}, ["1", "0"]),
    ],
)
def test_the_name_of_the_key_says_which_number_is_the_index(content: dict[str, Any], names: list[str]) -> None:
    labels = parse_label_forms(json.dumps(content).encode(), FILE, "mine")
    assert [one.name for one in labels.classes] == names


def test_ids_are_kept() -> None:
    text = json.dumps({"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]})
    labels = parse_label_forms(text.encode(), FILE, "mine")
    assert [(one.id, one.name) for one in labels.classes] == [("n01440764", "tench"), ("n01443537", "goldfish")]


def test_a_label_set_of_this_service_is_told_by_its_entries() -> None:
    assert is_label_set(Path("labels/imagenet1k.json").read_bytes())
    assert is_label_set(b'{"name": 3, "classes": [{"wrong": 1}]}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": "cat", "2": "dog"}', "known form"),
        ('{"cat": 1, "dog": 2}', "from 0 on"),
        ('{"cat": 0, "dog": 0}', "known form"),
        ("{}", "known form"),
        ('[["cat"], "dog"]', "known form"),
        ("[1, 2]", "known form"),
        ("3", "known form"),
        ('{"0": "cat"', "known form"),
        ("cat\n\ndog", "not valid: .*1"),
        ("", "not valid: .*at least"),
        ("[" * 100_000, "known form"),
        ('{"' + "9" * 100 + '": "cat"}', "known form"),
    ],
)
def test_other_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidLabelSet, match=message) as caught:
        parse_label_forms(text.encode(), FILE, "mine")
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused() -> None:
    with pytest.raises(InvalidLabelSet, match="not text in UTF-8"):
        parse_label_forms("Käfer".encode("latin-1"), FILE, "mine")
