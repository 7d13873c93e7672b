"""Answers of the demo model in the JSON of Ollama's API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_proxy.upstreams.demo.answers import Outcome, chat, embed, embeddings, generate
from ollama_proxy.upstreams.demo.requests import Refusal

MESSAGES = [{"role": "user", "content": "hi"}]


def documents(outcome: Outcome) -> list[Any]:
    return [json.loads(piece) for piece in outcome.pieces]


def test_a_stream_says_the_same_as_a_single_answer() -> None:
    streamed = chat({"model": "demo", "messages": MESSAGES})
    single = chat({"model": "demo", "messages": MESSAGES, "stream": False})
    *lines, last = documents(streamed)
    [whole] = documents(single)
    assert (streamed.content_type, last["done"]) == ("application/x-ndjson", True)
    assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"]
    assert last["eval_count"] == whole["eval_count"] > 0


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload")])
def test_nothing_to_answer_loads_or_unloads(keep_alive: object, reason: str) -> None:
    [document] = documents(generate({"model": "demo", "keep_alive": keep_alive}))
    assert (document["done_reason"], document["response"]) == (reason, "")


def test_vectors_of_both_routes() -> None:
    [many] = documents(embed({"model": "demo", "input": ["a", "b"]}))
    [one] = documents(embeddings({"model": "demo", "prompt": "a"}))
    assert len(many["embeddings"]) == 2
    assert len(one["embedding"]) == len(many["embeddings"][0])


@pytest.mark.parametrize("answer", [chat, generate, embed, embeddings])
def test_another_model_is_not_there(answer: Any) -> None:
    with pytest.raises(Refusal) as raised:
        answer({"model": "other", "messages": MESSAGES, "input": "a"})
    assert raised.value.status == 404
