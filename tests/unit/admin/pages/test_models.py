"""Which box of a model is asked, and what an entry must not be. The pages themselves: test_pages_models.py."""

from __future__ import annotations

from ollama_proxy.admin.pages.model_matrix import Box, Matrix
from ollama_proxy.admin.pages.models import PAGE, find_answering
from ollama_proxy.policy import ADMIN


def test_a_box_that_answers_comes_first() -> None:
    boxes = [Box(f"box{number}", "up", "", "", is_fresh=number > 1) for number in (1, 2, 3)]
    matrix = Matrix(boxes, [])
    assert find_answering(matrix, ["box1", "box3", "box2"]) == "box2"
    assert find_answering(matrix, ["box1"]) == "box1"


def test_all_of_it_is_for_administrators() -> None:
    assert set(PAGE.scopes.values()) == {ADMIN}
