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
    "ReadBy": "RequestedLocale",
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
    "Part": "Shard",
}
# Parts of names, and what the field says.
REPLACED_PARTS = {"picture": "image", "packed": "exported"}
# Names that version 1.0 published, and that therefore stay.
PUBLISHED_NAMES = {
    "pictures": "a field of evaluation records, calibrations and agreements in model files and on /metadata",
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


def replaced(name: str) -> str | None:
    """Return what a name in code should be, or ``None`` where it is right as it is."""
    if name in PUBLISHED_NAMES:
        return None
    parts = [better for part, better in REPLACED_PARTS.items() if re.search(rf"(?<!un){part}", name, re.IGNORECASE)]
    return REPLACED.get(name) or next(iter(parts), None)


@pytest.mark.parametrize(
    ("name", "better"),
    [("write_whole", "atomic_write"), ("read_picture", "image"), ("PackedModel", "exported"), ("unpacked", None)],
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
