import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from resnet_service.errors import InvalidModelOutput, InvalidTopK
from resnet_service.inference.ranking import check_top_k, rank, softmax
from resnet_service.models.labels import LabelSet

FIVE = LabelSet.numbered(5)


def test_best_first_with_probabilities_over_all_classes() -> None:
    ranked = rank(np.log(np.array([0.1, 0.5, 0.05, 0.3, 0.05], np.float32)), FIVE, 2)
    assert [answer.label for answer in ranked] == ["class 1", "class 3"]
    assert [answer.score for answer in ranked] == pytest.approx([0.5, 0.3])


def test_ties_come_in_the_order_of_their_index() -> None:
    many = rank(np.tile(np.array([0, 1], np.float32), 500), LabelSet.numbered(1000), 1000)
    assert [answer.class_id for answer in many] == [*range(1, 1000, 2), *range(0, 1000, 2)]


@given(arrays(np.float32, (5,), elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_any_finite_logits_give_probabilities(logits: np.ndarray) -> None:
    scores = softmax(logits)
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "logits", [[0, np.nan, 0, 0, 0], [np.inf, 0, 0, 0, 0], [0, 0, 0, 0], [[0, 0, 0, 0, 0]]], ids=str
)
def test_unsound_output_is_never_ranked(logits: list[float]) -> None:
    with pytest.raises(InvalidModelOutput):
        rank(np.array(logits, np.float32), FIVE, 1)


@pytest.mark.parametrize(("asked", "classes", "given_"), [(None, 1000, 5), (None, 3, 3), (1, 3, 1), (3, 3, 3)])
def test_top_k_within_the_classes(asked: int | None, classes: int, given_: int) -> None:
    assert check_top_k(asked, classes) == given_


@pytest.mark.parametrize("asked", [-1, 0, 4])
def test_top_k_outside_the_classes_is_refused(asked: int) -> None:
    with pytest.raises(InvalidTopK, match="3 classes"):
        check_top_k(asked, 3)
