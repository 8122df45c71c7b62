"""The tree of errors, and the table that maps it to HTTP."""

import importlib.metadata
import inspect
import json
import re
import sys
from http import HTTPStatus

import pytest

from resnet_service import errors
from resnet_service.api.problem_details import KINDS, status_of


def every_class() -> list[type[errors.ServiceError]]:
    members = [member for _, member in inspect.getmembers(errors, inspect.isclass)]
    return [member for member in members if issubclass(member, errors.ServiceError)]


def concrete() -> list[type[errors.ServiceError]]:
    return [cls for cls in every_class() if "code" in vars(cls)]


def test_each_code_belongs_to_one_class() -> None:
    codes = [cls.code for cls in concrete()]
    assert len(set(codes)) == len(codes)


def test_the_documentation_of_every_class_is_one_sentence_first() -> None:
    for cls in concrete():
        assert re.fullmatch(r"[^.;]+\.", (cls.__doc__ or "").partition("\n")[0]), cls


def test_what_a_client_causes_is_not_the_services_fault() -> None:
    """A new kind of `RequestError` needs a row in the table; without one, it would be 500."""
    for cls in concrete():
        if issubclass(cls, errors.RequestError):
            assert 400 <= status_of(cls) < 500, cls


# These end a command or the start of the service; a request that meets one all the same is answered with 500.
NOT_FOR_CLIENTS = {
    errors.AccuracyLossExceeded,
    errors.AddressUnavailable,
    errors.FileNotWritten,
    errors.InvalidSettings,
    errors.RuntimeUnavailable,
    errors.TracingUnavailable,
    errors.UnsuitableRuntime,
}
GROUPS_NOT_FOR_CLIENTS = (errors.ModelError, errors.DatasetError, errors.BatchError, errors.SourceError)


@pytest.mark.parametrize("cls", concrete())
def test_each_error_has_a_status_or_is_not_for_clients(cls: type[errors.ServiceError]) -> None:
    not_for_clients = cls in NOT_FOR_CLIENTS or issubclass(cls, GROUPS_NOT_FOR_CLIENTS)
    assert (cls in KINDS) != not_for_clients


def test_errors_without_a_row_of_their_own_have_the_status_of_their_base_class_or_500() -> None:
    class TooManyQueues(errors.Overloaded):
        code = "too_many_queues"

    assert status_of(TooManyQueues) == HTTPStatus.TOO_MANY_REQUESTS
    assert status_of(errors.PickledCode) == HTTPStatus.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize("cls", [cls for cls in every_class() if "code" not in vars(cls)])
def test_classes_without_a_code_only_group_others(cls: type[errors.ServiceError]) -> None:
    assert cls.__subclasses__()


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        (
            {"url": "file:///home/me/it", "dir_info": {"editable": True}},
            "Install the extra ray: PYTHON -m pip install --editable '/home/me/it[ray]'",
        ),
        (
            {"url": "file:///home/it.whl", "archive_info": {}},
            "Install the extra ray: PYTHON -m pip install '/home/it.whl[ray]'",
        ),
        (None, "In a checkout of resnet-service, install the extra ray: PYTHON -m pip install '.[ray]'"),
    ],
)
def test_the_hint_is_the_command_for_this_installation(
    origin: dict[str, object] | None, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable installation must not become a copy."""

    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    monkeypatch.setattr(sys, "executable", "PYTHON")
    assert errors.install_hint("ray") == hint
