"""The form for an entry of `models`."""

from __future__ import annotations

from typing import Any

from ollama_proxy.admin.pages.model_form import FIELDS, fill_form, read_form_value, read_number
from ollama_proxy.settings import read_model
from tests.rig.tables import each_row

VALUE: dict[str, Any] = {
    "target": "box1:qwen3:8b",
    "hidden": True,
    "think": "low",
    "keep_alive": -1,
    "options": {"num_ctx": 4096, "temperature": 0.5, "stop": ["a", "b c"]},
    "clamp": {"num_ctx": 8192, "keep_alive": "1h"},
    "price": {"input": 0.5, "output": 2},
}


def test_what_the_form_shows_is_what_it_saves() -> None:
    read_model("m", VALUE)
    assert read_form_value(fill_form(VALUE), {}) == VALUE


def test_what_it_has_no_fields_for_stays() -> None:
    before = {
        "system": {"prepend": "Be kind."},
        "options": {"num_gpu": 1, "num_ctx": 4096},
        "clamp": {"num_ctx": 9},
    }
    assert read_form_value({"think": "true", "hidden": ""}, before) == {
        "system": {"prepend": "Be kind."},
        "options": {"num_gpu": 1},
        "think": True,
    }
    assert before["clamp"] == {"num_ctx": 9}


@each_row(
    ("text", "read"),
    [("1", 1), ("-1", -1), ("0.5", 0.5), ("30m", "30m"), ("nan", "nan"), ("1e999", "1e999")],
)
def test_a_number_that_is_none_stays_text(text: str, read: object) -> None:
    assert read_number(text) == read


def test_every_field_is_a_setting() -> None:
    """Reading raises ConfigError, which names a field that is none."""
    text = {"text": "x", "number": "1", "think": "true", "lines": "x"}
    for each in FIELDS:
        value = "1h" if "keep_alive" in each.name else text.get(each.kind, "yes")
        read_model("m", read_form_value({each.name: value}, {}))
