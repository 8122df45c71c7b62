"""The language of class names: what a client prefers, and what the model has."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from resnet_service.errors import UnsupportedLanguage
from resnet_service.inference.base import ImageClassifier
from resnet_service.models.label_translations import LANGUAGES, ORIGINAL, Language

# Browsers send about a hundred characters and ten ranges; what exceeds these limits is ignored.
_MAX_CHARACTERS = 1000
_MAX_RANGES = 32
# One range of the field Accept-Language: RFC 9110, sections 12.4.2 (weights) and 12.5.4.
_RANGE = re.compile(r"(\*|[a-z]{1,8})(?:-[a-z0-9]{1,8})*(?:[ \t]*;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?")


@lru_cache(maxsize=128)  # few values differ, and parsing one costs more than the rest of a route's arguments
def preferred_languages(accept_language: str) -> tuple[Language, ...]:
    """Return the supported languages that an ``Accept-Language`` header accepts, most preferred first.

    Only the first subtag of a range counts: ``zh-TW`` prefers ``zh`` to ``en``. ``*`` stands for the original language,
    unless the header also names that language. Among equal weights, the range named first comes first. Malformed ranges
    are ignored, as the standard allows.
    """
    weights: dict[Language, float] = {}
    others = 0.0
    for part in accept_language.lower().split(",", _MAX_RANGES)[:_MAX_RANGES]:
        match = _RANGE.fullmatch(part.strip(" \t"))
        if match is None:
            continue
        weight = float(match[2] or 1)
        if match[1] == "*":
            others = max(weight, others)
        for language in LANGUAGES:
            if match[1] == language:
                weights[language] = max(weight, weights.get(language, 0))
    weights.setdefault(ORIGINAL, others)
    wanted = [language for language, weight in weights.items() if weight > 0]
    return tuple(sorted(wanted, key=lambda language: -weights[language]))


class LabelLocale:
    """The language of one response; ``wanted`` are the languages of the request, best first.

    ``names`` sets the response's headers. A route that returns a response of its own must add ``headers`` to it, after
    it called ``names``.
    """

    def __init__(self, wanted: Sequence[Language], response: Response) -> None:
        self._wanted = wanted
        self._response = response
        self.headers: dict[str, str] = {}

    def names(self, classifier: ImageClassifier) -> tuple[str, ...] | None:
        """Return the names of all classes in the chosen language, or ``None`` for the label set's own.

        Without a translation into a wanted language, the label set's own names are used. Call this with the classifier
        that answered, before the route returns, since it sets ``Content-Language``.
        """
        known: tuple[Language, ...] = (ORIGINAL, *classifier.model.translations)
        language = next((language for language in self._wanted if language in known), ORIGINAL)
        self.headers = {"Content-Language": language, "Vary": "Accept-Language"}
        self._response.headers.update(self.headers)
        return None if language == ORIGINAL else classifier.model.translations[language]


async def _locale(
    request: Request,
    response: Response,
    lang: Annotated[
        str | None,
        Query(
            description="The language of the class names; by default, `Accept-Language` decides. If the model has no "
            "names in that language, they are in English. `Content-Language` has the language of the response.",
            json_schema_extra={"enum": list(LANGUAGES)},
        ),
    ] = None,
) -> LabelLocale:
    if lang is None:
        field = ",".join(request.headers.getlist("accept-language"))
        return LabelLocale(preferred_languages(field[:_MAX_CHARACTERS]), response)
    wanted = [language for language in LANGUAGES if language == lang]
    if not wanted:
        raise UnsupportedLanguage(f"lang is {lang[:40]!r}; supported languages are {', '.join(LANGUAGES)}.")
    return LabelLocale(wanted, response)


RequestedLocale = Annotated[LabelLocale, Depends(_locale)]
