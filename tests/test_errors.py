import inspect

import pytest

from resnet_service import errors
from resnet_service.api.problem_details import STATUS


def every_class() -> list[type[errors.ServiceError]]:
    members = [member for _, member in inspect.getmembers(errors, inspect.isclass)]
    return [member for member in members if issubclass(member, errors.ServiceError)]


def concrete() -> list[type[errors.ServiceError]]:
    return [cls for cls in every_class() if "code" in vars(cls)]


def test_each_code_belongs_to_one_class() -> None:
    codes = [cls.code for cls in concrete()]
    assert len(set(codes)) == len(codes)


def test_every_class_is_drawn_in_the_tree() -> None:
    drawing = (errors.__doc__ or "").split()
    assert {cls.__name__ for cls in every_class()} <= set(drawing)


def test_every_class_with_a_code_has_a_status_and_no_other_has() -> None:
    assert set(STATUS) == set(concrete())


@pytest.mark.parametrize("cls", [cls for cls in every_class() if "code" not in vars(cls)])
def test_classes_without_a_code_only_group_others(cls: type[errors.ServiceError]) -> None:
    assert cls.__subclasses__()
