"""One concept, one word: the words that the glossary of docs/architecture.md replaced stay out."""

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

# Names in code that have been replaced, and by what.
REPLACED = {
    "Observation": "RequestContext",
    "Observer": "RequestContextMiddleware",
    "EarlyAnswer": "EarlyResponseMiddleware",
    "HeldBytes": "BodyBudget",
    "give_back": "release",
    "Opening": "ModelLoader",
    "Reader": "LabelLocale",
    "ReadBy": "RequestedLocale",  # codespell:ignore
    "ahead": "prefetch",
    "alone": "prefer_latency",
    "places": "slots",
    "lend": "release",
    "doubt": "mark_unhealthy",
    "UnsoundOutput": "InvalidModelOutput",
    "TooLossy": "AccuracyLossExceeded",
    "TooManyBytes": "BodyBudgetExceeded",
    "NoFile": "MissingImage",
    "write_whole": "atomic_write",
    "share_one_heap": "limit_malloc_arenas",
    "objects_that_stay": "gc_frozen",
    "hide": "block_import",
    "enough": "min_side",
    "say": "on_message",
    "halve": "store_weights_fp16",
    "refuse_loss": "check_accuracy_loss",
    "Tailed": "TracedModel",
    "Recipe": "ClassifierConfig",
    "sentence": "summary",
}
# Words that are replaced in longer names too, in the singular and the plural.
REPLACED_IN_NAMES = {
    "picture": "image",
    "packed": "exported",
    "pack": "export",
    "part": "shard",
    "places": "slots",
    "lend": "release",
    "doubt": "mark_unhealthy",
    "room": "module",
    "dear": "expensive",
    "observation": "RequestContext",
    "observer": "RequestContextMiddleware",
}
# Names that version 1.0 published, names of other packages, and ordinary English; in lower case.
ALLOWED_NAMES = {
    "pictures": "a field of evaluation records, calibrations and agreements in model files and on /metadata",
    "pack": "struct.pack",
    "test_pack_still_exports": "the command of version 1.0",
    "part": "a piece of a text, or of a form",
    "parts": "pieces of a text, or of a form",
    "multipartexception": "Starlette's, about a form",
    "multipartparser": "Starlette's, about a form",
    "max_part_size": "Starlette's, about a form",
    "alone": "a column of the benchmarks: one connection",
    "reader": "a thread that reads",
    "recipe": "how torchvision prepares images for a model",
}

# Words in prose, and what the field says.
REPLACED_WORDS = {"anew": "again", "lest": "so that ... not", "strangers?": "untrusted", "pictures?": "image"}
# Files in which words are quoted or not ours.
NOT_OURS = re.compile(
    r"CHANGELOG\.md|LICENSE|NOTICE|docs/openapi\.json|docs/benchmarks/results\.json|requirements/|swagger-ui|"
    r"src/resnet_service/web/samples/|tests/data/|tests/source/test_words\.py|labels/|fuzz/corpus/"
)


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], capture_output=True, text=True, timeout=30, check=True)
    return [path for line in listed.stdout.splitlines() if (path := Path(line)).is_file()]


def words_in(name: str) -> list[str]:
    """Return the words of a name in snake_case or CamelCase, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def replaced(name: str) -> str | None:
    """Return what a name in code should be, or ``None`` where it is right as it is."""
    if name.lower() in ALLOWED_NAMES:
        return None
    for word, better in REPLACED_IN_NAMES.items():
        if {word, f"{word}s"} & set(words_in(name)):
            return better
    return next((better for word, better in REPLACED.items() if word.lower() == name.lower()), None)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("write_whole", "atomic_write"),
        ("read_picture", "image"),
        ("PackedModel", "exported"),
        ("PLACES", "slots"),
        ("test_parts_grow", "shard"),
        ("unpacked", None),
        ("part", None),
    ],
)
def test_a_replaced_name_would_be_found(name: str, better: str | None) -> None:
    assert replaced(name) == better


def test_no_name_in_code_has_been_replaced() -> None:
    found = [
        f"{path}:{token.start[0]}: {token.string}; say {better}"
        for path in tracked("*.py")
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.NAME and (better := replaced(token.string))
    ]
    assert not found, "\n".join(found)


def test_no_word_in_prose_has_been_replaced() -> None:
    words = re.compile(rf"\b({'|'.join(REPLACED_WORDS)})\b", re.IGNORECASE)
    found = []
    for path in tracked(
        "*.py", "*.md", "*.toml", "*.yml", "*.yaml", "*.html", "*.js", "*.css", "Makefile", "Dockerfile"
    ):
        if NOT_OURS.search(str(path)):
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if (word := words.search(line)) and not re.search(r"\bpictures\b[\"`]?\s*[:=\])]|[\"`.]pictures\b", line):
                found.append(f"{path}:{number}: {word[0]}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
