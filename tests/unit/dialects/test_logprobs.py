"""Log probabilities in the forms of the dialects that have them."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.dialects.logprobs import render_logprobs

LOGPROBS: list[dict[str, Any]] = [
    {"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "b", "bytes": [98]}, {"token": "", "logprob": None}]},
    {"logprob": -1.5, "bytes": [1, 2]},
]
B, NOTHING = {"token": "b", "logprob": 0.0, "bytes": [98]}, {"token": "", "logprob": 0.0}
FIRST, SECOND = {"token": "é", "logprob": -0.5}, {"token": "", "logprob": -1.5, "bytes": [1, 2]}
SPELLED = {**FIRST, "bytes": [195, 169]}

FORMS: dict[str, tuple[dict[str, bool], list[dict[str, Any]]]] = {
    "bytes may be null": (
        {"spells": False},
        [{**FIRST, "bytes": None, "top_logprobs": [B, NOTHING | {"bytes": None}]}, {**SECOND, "top_logprobs": []}],
    ),
    "bytes are always there": (
        {"spells": True},
        [{**SPELLED, "top_logprobs": [B, NOTHING | {"bytes": []}]}, {**SECOND, "top_logprobs": []}],
    ),
    "what is empty is left out": (
        {"spells": True, "omits_empty": True},
        [{**SPELLED, "top_logprobs": [B, NOTHING]}, SECOND],
    ),
}


@pytest.mark.parametrize(("form", "expected"), FORMS.values(), ids=FORMS)
def test_forms(form: dict[str, bool], expected: list[dict[str, Any]]) -> None:
    assert render_logprobs(LOGPROBS, **form) == expected
