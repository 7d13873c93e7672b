"""Thinking as the opaque text that clients carry."""

from __future__ import annotations

import pytest

from ollama_proxy.dialects.responses.reasoning_blob import seal, unseal


@pytest.mark.parametrize("text", ["", "hm", "深く考える", "a\n\nb", "x" * 10_000, "~~~???>>>"])
def test_what_is_sealed_can_be_read_again(text: str) -> None:
    assert unseal(seal(text)) == text


def test_sealed_text_is_one_word_that_does_not_show_it() -> None:
    blob = seal("I need the tool.")
    assert blob.startswith("gw1.")
    assert "tool" not in blob
    assert not set(blob) & set(" \n/+")


@pytest.mark.parametrize("blob", ["", "gAAAAABfaKe", "gw2.aG0=", "gw1.!", "gw1.aG0", "gw1./w==", "gw1._w==", "gw1.é"])
def test_blob_of_somebody_else_is_nothing(blob: str) -> None:
    assert unseal(blob) is None
