"""Which language a client reads class names in, and which it gets."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from resnet_service.errors import UnsupportedLanguage
from resnet_service.inference.base import ImageClassifier
from resnet_service.models.label_translations import LANGUAGES, ORIGINAL, Language

# What browsers send has about a hundred characters and ten ranges; more is read no further.
_MAX_CHARACTERS = 1000
_MAX_RANGES = 32
# One range of the field Accept-Language: RFC 9110, sections 12.4.2 (weights) and 12.5.4.
_RANGE = re.compile(r"(\*|[a-z]{1,8})(?:-[a-z0-9]{1,8})*(?:[ \t]*;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?")


@lru_cache(maxsize=128)  # there are few different ones, and parsing one costs more than the rest of a route's arguments
def preferred(accept_language: str) -> tuple[Language, ...]:
    """Return our languages in the order in which the field ``Accept-Language`` wants them, unwanted ones left out.

    A range means all that its first subtag does (``zh-TW`` would rather read ``zh`` than ``en``); ``*`` is the
    original, unless the field names that as well. Where two weigh the same, the first one wins. Ranges that are
    malformed are ignored, as the standard allows.
    """
    weights: dict[Language, float] = {}
    others = 0.0
    for part in accept_language.lower().split(",", _MAX_RANGES)[:_MAX_RANGES]:
        found = _RANGE.fullmatch(part.strip(" \t"))
        if found is None:
            continue
        weight = float(found[2] or 1)
        if found[1] == "*":
            others = max(weight, others)
        for language in LANGUAGES:
            if found[1] == language:
                weights[language] = max(weight, weights.get(language, 0))
    weights.setdefault(ORIGINAL, others)
    wanted = [language for language, weight in weights.items() if weight > 0]
    return tuple(sorted(wanted, key=lambda language: -weights[language]))


class LabelLocale:
    """Who reads one answer; ``wanted`` are the languages it asked for, best first.

    FastAPI puts what it says into the answer's head, unless the route returns a response of its own: that has to carry
    ``headers``, which are known once ``names`` was called.
    """

    def __init__(self, wanted: Sequence[Language], response: Response) -> None:
        self._wanted = wanted
        self._response = response
        self.headers: dict[str, str] = {}

    def names(self, classifier: ImageClassifier) -> tuple[str, ...] | None:
        """Return the names of all classes as the reader wants them, or ``None`` for those of the label set itself.

        Where the model has none in a language that is wanted, it is the label set itself. Call it with the classifier
        that answered, before the route returns: it makes the answer's head say which language it is.
        """
        known: tuple[Language, ...] = (ORIGINAL, *classifier.model.translations)
        language = next((language for language in self._wanted if language in known), ORIGINAL)
        self.headers = {"Content-Language": language, "Vary": "Accept-Language"}
        self._response.headers.update(self.headers)
        return None if language == ORIGINAL else classifier.model.translations[language]


async def _reader(
    request: Request,
    response: Response,
    lang: Annotated[
        str | None,
        Query(
            description="Language of the class names; by default the one that `Accept-Language` prefers. A model "
            "without names in it answers in English; `Content-Language` says which it is.",
            json_schema_extra={"enum": list(LANGUAGES)},
        ),
    ] = None,
) -> LabelLocale:
    if lang is None:
        field = ",".join(request.headers.getlist("accept-language"))
        return LabelLocale(preferred(field[:_MAX_CHARACTERS]), response)
    wanted = [language for language in LANGUAGES if language == lang]
    if not wanted:
        raise UnsupportedLanguage(f"lang is {lang[:40]!r}; class names are in one of: {', '.join(LANGUAGES)}.")
    return LabelLocale(wanted, response)


RequestedLocale = Annotated[LabelLocale, Depends(_reader)]
