"""Texts of providers, without what is nobody's business."""

from __future__ import annotations

import pytest

from ollama_proxy.upstreams.error_text import without_keys


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Incorrect API key: sk-proj-abc123***xyz.", "Incorrect API key: ...."),
        ("header Bearer abc.def was refused", "header ... was refused"),
        ("see https://gpu1.internal:8000/v1 for more", "see ... for more"),
        ("key my-own-key is wrong", "key ... is wrong"),
        ("the task is too long", "the task is too long"),
    ],
)
def test_keys_and_addresses_are_left_out(text: str, shown: str) -> None:
    assert without_keys(text, ["my-own-key", ""]) == shown
