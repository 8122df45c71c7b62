"""What ``tools/compare_openapi.py`` takes for a difference."""

from copy import deepcopy
from typing import Any

from tools.compare_openapi import compare

DOCUMENT: dict[str, Any] = {
    "info": {"title": "service", "version": "1.0.0", "description": "Old."},
    "paths": {
        "/predict": {
            "post": {
                "operationId": "predict",
                "summary": "Old.",
                "responses": {"200": {"content": {"application/json": {"examples": {"cat": {"value": 1}}}}}},
            }
        }
    },
    "components": {"schemas": {"Answer": {"title": "Answer", "properties": {"description": {"type": "string"}}}}},
}


def test_texts_and_values_of_examples_are_no_difference() -> None:
    other = deepcopy(DOCUMENT)
    other["info"] |= {"version": "1.1.0", "description": "New."}
    operation = other["paths"]["/predict"]["post"]
    operation["summary"] = "New."
    operation["responses"]["200"]["content"]["application/json"]["examples"]["cat"]["value"] = 2
    assert compare(DOCUMENT, other) == []


def test_names_and_types_are_differences() -> None:
    other = deepcopy(DOCUMENT)
    operation = other["paths"]["/predict"]["post"]
    operation["operationId"] = "classify"
    operation["responses"]["200"]["content"]["application/json"]["examples"] = {"dog": {"value": 1}}
    other["components"]["schemas"]["Answer"]["properties"]["description"]["type"] = "integer"
    assert compare(DOCUMENT, other) == [
        '/components/schemas/Answer/properties/description/type: "string" -> "integer"',
        '/paths//predict/post/operationId: "predict" -> "classify"',
        '/paths//predict/post/responses/200/content/application/json/examples/0: "cat" -> "dog"',
    ]


def test_what_is_missing_is_a_difference() -> None:
    other = deepcopy(DOCUMENT)
    del other["components"]["schemas"]["Answer"]
    assert [line.partition(":")[0] for line in compare(DOCUMENT, other)] == ["/components/schemas/Answer"]
