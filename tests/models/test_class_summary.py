import pytest

from resnet_service.models.class_summary import FIRST_NAMES, MAX_LENGTH, MAX_NAMES, class_summary
from resnet_service.models.label_translations import LANGUAGES, Language


@pytest.mark.parametrize(
    ("names", "language", "summary"),
    [
        (["cat"], "en", "1 class: cat"),
        (["猫"], "zh", "1 个类别：猫"),
        (["cat", "dog"], "en", "2 classes: cat, dog"),
        (["猫", "狗"], "zh", "2 个类别：猫、狗"),
    ],
)
def test_few_classes_are_all_named(names: list[str], language: Language, summary: str) -> None:
    assert class_summary(names, language) == summary


def test_of_many_classes_the_first_are_named_and_all_are_counted() -> None:
    names = [f"class {index}" for index in range(12_000)]
    english, chinese = (class_summary(names, language) for language in ("en", "zh"))
    assert english == "12,000 classes: class 0, class 1, class 2, class 3, class 4 and 11,995 more"
    assert chinese == "12,000 个类别：class 0、class 1、class 2、class 3、class 4，另有 11,995 个"


def test_the_number_of_classes_decides() -> None:
    names = [f"c{index}" for index in range(MAX_NAMES + 1)]
    assert class_summary(names[:-1], "en").endswith(f"c{MAX_NAMES - 2}, c{MAX_NAMES - 1}")
    assert class_summary(names, "en").endswith(f"c{FIRST_NAMES - 1} and {MAX_NAMES + 1 - FIRST_NAMES} more")


def test_it_is_one_line_of_limited_length_whatever_the_names_are() -> None:
    assert class_summary(["a\n forged\tline ", "b"], "en") == "2 classes: a forged line, b"
    assert class_summary(["x" * MAX_LENGTH], "en") == f"1 class: {'x' * MAX_LENGTH}"
    assert class_summary(["x" * 200], "en") == f"1 class: {'x' * (MAX_LENGTH - 1)}…"


def test_there_are_phrases_in_every_language() -> None:
    assert len({class_summary(["x"] * 20, language) for language in LANGUAGES}) == len(LANGUAGES)
