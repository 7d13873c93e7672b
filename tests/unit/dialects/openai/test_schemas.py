"""The fields of OpenAI's chat and completions: what each may hold."""

from __future__ import annotations

from typing import Any

from ollama_proxy.dialects.openai.schemas import ChatSchema, CompletionSchema
from tests.rig.tables import each_row

CHAT, COMPLETION = ChatSchema(), CompletionSchema()


@each_row(
    "fields",
    [
        {"stop": "a"},
        {"stop": ["a", "b"]},
        {"max_tokens": -1},
        {"max_tokens": 1},
        {"modalities": ["text"]},
        {"n": None},
    ],
)
def test_values_that_are_accepted(fields: dict[str, Any]) -> None:
    assert CHAT.validate(fields) == {}


@each_row(
    "fields",
    [
        {"stop": [1]},
        {"max_tokens": 0},
        {"max_completion_tokens": -2},
        {"modalities": ["audio"]},
        {"audio": {}},
        {"temperature": "hot"},
        {"temperature": True},
        {"seed": 2**63},
    ],
)
def test_values_that_are_refused(fields: dict[str, Any]) -> None:
    assert CHAT.validate(fields).keys() == fields.keys()


def test_log_probabilities_are_a_switch_of_chats_and_a_number_of_completions() -> None:
    assert CHAT.validate({"logprobs": True}) == COMPLETION.validate({"logprobs": 3}) == {}
    assert CHAT.validate({"logprobs": 3}) and COMPLETION.validate({"logprobs": True})
