"""Which box of a model is asked, and what an entry must not be. The pages themselves:
test_pages_models.py."""

from __future__ import annotations

from ollama_proxy.admin.model_matrix import Box, Matrix
from ollama_proxy.admin.pages.models import PAGE, find_answering
from ollama_proxy.policy import ADMIN
from tests.unit.admin.pages.conftest import Visitor


def test_a_box_that_answers_comes_first() -> None:
    boxes = [Box(f"box{number}", "up", "", "", is_fresh=number > 1) for number in (1, 2, 3)]
    matrix = Matrix(boxes, [])
    assert find_answering(matrix, ["box1", "box3", "box2"]) == "box2"
    assert find_answering(matrix, ["box1"]) == "box1"


def test_all_of_it_is_for_administrators() -> None:
    assert set(PAGE.scopes.values()) == {ADMIN}


def test_a_mistake_in_a_modelfile_is_said_in_the_language_of_the_reader(operator: Visitor) -> None:
    form = {"model": "mine", "box": "demo", "modelfile": "FROM m\nCOLOUR red"}
    for language, said in (
        ("en", "Line 2, COLOUR: there is no such instruction"),
        ("zh", "第 2 行，COLOUR：没有这个指令"),
    ):
        answer = operator.post("/admin/models/create", form, Accept_Language=language)
        assert answer.status_code == 400 and said in answer.text


def test_a_form_with_a_box_that_is_none_is_refused(operator: Visitor) -> None:
    answer = operator.post("/admin/models/pull", {"model": "m", "box": "box9"})
    assert answer.status_code == 303
    text = operator.get("/admin/models").text
    assert "There is no Ollama server" in text and "box9" in text
