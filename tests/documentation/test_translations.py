"""The Chinese pages say what the English ones do: the same commands, answers, figures, links and parts."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support.servers import REPOSITORY

TRANSLATED = [(name, name.replace(".md", ".zh.md")) for name in ("README.md", "docs/serialization.md")]

# Links that lead to something else in Chinese, besides pages that are translated.
SHOWN_IN_CHINESE = {"docs/page/desktop.webp": "docs/page/dark-chinese.webp"}

CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Not digits of a name, such as those of INT8 or ResNet-18.
NUMBER = re.compile(r"(?<![\w.-])\d+(?:[.,]\d+)*(?:e-?\d+)?", re.ASCII)


def read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def links(page: str, name: str, *, translate: bool = False) -> Counter[str]:
    """Count the targets of a page's links, as those of its translation if asked."""
    folder = Path(name).parent
    found = Counter(re.findall(r"\]\(([^)]+)\)|(<http[^>]+>)", CODE.sub("", page)))
    targets = {link or address: number for (link, address), number in found.items()}
    return Counter({(chinese(target, folder) if translate else target): number for target, number in targets.items()})


def chinese(target: str, folder: Path) -> str:
    if target in SHOWN_IN_CHINESE:
        return SHOWN_IN_CHINESE[target]
    if target.endswith(".zh.md"):  # the link from a page to its translation
        return target.replace(".zh.md", ".md")
    page, anchor, section = target.partition("#")
    translated = page.replace(".md", ".zh.md")
    there = page.endswith(".md") and (REPOSITORY / folder / translated).exists()
    return translated + anchor + section if there else target


def numbers(page: str) -> Counter[str]:
    """Count the numbers in a page's text and tables; those in addresses are the links' concern."""
    text = re.sub(r"\]\([^)]+\)|<http[^>]+>|<!--.*?-->", "", CODE.sub("", page))
    return Counter(NUMBER.findall(text))


def tables(page: str) -> list[list[list[str]]]:
    """Return the numbers in each cell of each table, row after row."""
    found = re.findall(r"(?:^\|.*\|\n)+", CODE.sub("", page), re.MULTILINE)
    cells = [[cell for row in table.splitlines() for cell in re.split(r"(?<!\\)\|", row)] for table in found]
    return [[NUMBER.findall(cell) for cell in table] for table in cells]


def headings(page: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", CODE.sub("", page), re.MULTILINE)]


@pytest.mark.parametrize(("english", "translation"), TRANSLATED)
def test_commands_and_answers_are_the_same(english: str, translation: str) -> None:
    assert CODE.findall(read(translation)) == CODE.findall(read(english))


@pytest.mark.parametrize(("english", "translation"), TRANSLATED)
def test_figures_are_the_same(english: str, translation: str) -> None:
    assert tables(read(translation)) == tables(read(english))
    assert numbers(read(translation)) == numbers(read(english))


@pytest.mark.parametrize(("english", "translation"), TRANSLATED)
def test_links_are_the_same(english: str, translation: str) -> None:
    assert links(read(translation), translation) == links(read(english), english, translate=True)


@pytest.mark.parametrize(("english", "translation"), TRANSLATED)
def test_sections_are_the_same(english: str, translation: str) -> None:
    assert headings(read(translation)) == headings(read(english))


@pytest.mark.parametrize(("english", "translation"), TRANSLATED)
def test_each_page_links_to_the_other(english: str, translation: str) -> None:
    assert Path(translation).name in links(read(english), english)
    assert Path(english).name in links(read(translation), translation)


@pytest.mark.parametrize("name", [translation for _, translation in TRANSLATED])
def test_they_are_in_chinese(name: str) -> None:
    text = CODE.sub("", read(name))
    chinese_characters = len(re.findall(r"[\u4e00-\u9fff]", text))
    assert chinese_characters > 500


def test_what_drifts_apart_would_be_found() -> None:
    page = "# A\n\n8 GB, [b](c.md#d)\n\n| x | 1.5 |\n|---|---|\n"
    assert numbers(page) != numbers(page.replace("8", "7"))
    assert tables(page) != tables(page.replace("1.5", "2.5"))
    assert tables(page) != tables(page.replace("| x | 1.5 |", "| 1.5 | x |"))
    assert links(page, "x.md") != links(page.replace("#d", "#e"), "x.md")
    assert headings(page) != headings(page.replace("# A", "## A"))
    assert numbers("ResNet-18, INT8") == Counter()
