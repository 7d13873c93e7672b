"""Text on a terminal."""

from __future__ import annotations

import pytest

from ollama_proxy.cli.terminal import align, measure_width, show_text


def test_characters_that_control_the_terminal_are_replaced() -> None:
    mark = "\N{REPLACEMENT CHARACTER}"
    assert show_text("a\x1b[31m\n张三\u202eb") == f"a{mark}[31m{mark}张三{mark}b"


def test_columns_are_aligned_in_every_script() -> None:
    assert align(["web", "张三", ""]) == ["web ", "张三", "    "]
    assert align(["web", "张三", ""], to_right=True) == [" web", "张三", "    "]


@pytest.mark.parametrize(
    ("text", "width"), [("web", 3), ("张三", 4), ("e\N{COMBINING ACUTE ACCENT}", 1), ("", 0)]
)
def test_width_on_a_terminal(text: str, width: int) -> None:
    assert measure_width(text) == width
