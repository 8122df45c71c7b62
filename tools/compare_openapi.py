"""Compare the OpenAPI document with that of an earlier revision, without its texts and the contents of its examples.

``python -m tools.compare_openapi v1.0.0`` compares ``docs/openapi.json`` of that revision with the one in the working
tree; a second revision replaces the working tree. The exit code is 1 if clients could notice a difference.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tools.openapi import TARGET

_TEXTS = {"description", "summary", "example", "examples"}
# The keys of these objects are names, not keywords of OpenAPI: a property called `description` is compared.
_NAMES = {"paths", "schemas", "parameters", "securitySchemes", "responses", "headers", "content", "properties", "$defs"}
_MISSING = "(missing)"


def without_texts(part: Any, *, names: bool = False) -> Any:
    """Return a part of a document without its texts; of named examples, the names stay."""
    if isinstance(part, list):
        return [without_texts(element) for element in part]
    if not isinstance(part, dict):
        return part
    kept = {}
    for key, value in part.items():
        if names or key not in _TEXTS:
            kept[key] = without_texts(value, names=key in _NAMES and not names)
        elif key == "examples" and isinstance(value, dict):
            kept[key] = sorted(value)
    return kept


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield a line for each difference between two parts."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key, _MISSING), new.get(key, _MISSING), f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{where}/{index}")
    elif old != new:
        yield f"{where}: {json.dumps(old)} -> {json.dumps(new)}"


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the differences between two documents; the service's own version is not one."""
    bare = [without_texts(document) for document in (old, new)]
    for document in bare:
        document["info"].pop("version")
    return list(differences(*bare))


def _read(revision: str | None) -> dict[str, Any]:
    if revision is None:
        text = TARGET.read_text()
    else:
        command = ["git", "show", f"{revision}:{TARGET}"]
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout  # noqa: S603 - our argument
    document: dict[str, Any] = json.loads(text)
    return document


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m tools.compare_openapi REVISION [REVISION]")
    old_revision, new_revision = [*sys.argv[1:], None][:2]
    found = compare(_read(old_revision), _read(new_revision))
    print("\n".join(found) or "The documents differ in nothing but texts.")
    sys.exit(bool(found))
