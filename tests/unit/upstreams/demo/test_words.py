"""What the demo model says: the same words for the same request."""

from __future__ import annotations

import math
from typing import Any

from ollama_proxy.upstreams.demo.requests import load_chat
from ollama_proxy.upstreams.demo.words import (
    DIMENSIONS,
    GREETING,
    Said,
    count_tokens,
    logprobs,
    say,
    unit_vector,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def said(text: str = "hi", **fields: Any) -> Said:
    return say(
        load_chat({"model": "demo", "messages": [{"role": "user", "content": text}], **fields})
    )


def spoken(said: Said) -> str:
    return "".join(piece.content for piece in said.pieces)


def test_it_says_that_it_is_a_demo_and_what_was_said() -> None:
    assert spoken(said("Grüße 世界")).startswith(GREETING)
    assert "Grüße 世界" in spoken(said("Grüße 世界"))
    assert said() == said()


def test_tokens_give_the_text_back() -> None:
    text = "  Grüße, 世界很大! x_1\n"
    answer = said(text)
    assert len(answer.pieces) > len(text.split()) and spoken(answer).endswith(f": {text}")
    assert count_tokens("") == 0


def test_limits_and_stops() -> None:
    cut = said(options={"num_predict": 3})
    assert (len(cut.pieces), cut.done_reason, cut.eval_count) == (3, "length", 3)
    assert "demo" not in spoken(said(options={"stop": ["demo"]}))


def test_a_tool_that_is_offered_is_called_with_arguments_of_its_schema() -> None:
    [piece] = said("How is it?", tools=[TOOL]).pieces
    assert piece.call is not None
    assert piece.call["function"]["name"] == "get_weather"
    assert isinstance(piece.call["function"]["arguments"]["city"], str)


def test_thinking_comes_first() -> None:
    pieces = said(think=True).pieces
    kinds = [bool(piece.thinking) for piece in pieces]
    assert kinds[0]
    assert kinds == sorted(kinds, reverse=True)


def test_log_probabilities_one_row_for_each_token() -> None:
    pieces = said().pieces
    rows = logprobs(pieces, 3)["logprobs"]
    assert [row["token"] for row in rows] == [piece.content for piece in pieces]
    assert {len(row["top_logprobs"]) for row in rows} == {3}


def test_vectors_have_the_length_one() -> None:
    for dimensions, count in ((0, DIMENSIONS), (8, 8)):
        vector = unit_vector("hi", dimensions)
        assert (len(vector), round(math.hypot(*vector), 4)) == (count, 1.0)
    assert unit_vector("hi") != unit_vector("ho")
