"""Requests to the demo model: what is read, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_proxy.upstreams.demo.requests import Refusal, is_demo, load_chat, load_generate, load_object

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "name", ["demo", "Demo", " demo:latest ", "library/demo", "registry.ollama.ai/library/demo:latest"]
)
def test_spellings_of_the_model(name: str) -> None:
    assert is_demo(name)


@pytest.mark.parametrize("name", ["demo:other", "demos", "", "me/demo"])
def test_other_models(name: str) -> None:
    assert not is_demo(name)


def test_null_is_absent() -> None:
    assert load_object(b'{"model": "demo", "stream": null}') == {"model": "demo"}


def test_a_chat() -> None:
    asked = load_chat({"model": "demo", "messages": MESSAGES, "think": "high", "logprobs": True, "top_logprobs": 2})
    assert (asked.stream, asked.think, asked.top_logprobs, asked.is_unload) == (True, True, 2, False)
    assert load_chat({"model": "demo", "keep_alive": "0s"}).is_unload


def test_a_completion_is_a_chat_of_one_message() -> None:
    [message] = load_generate({"model": "demo", "prompt": "hi"}).messages
    assert (message["role"], message["content"]) == ("user", "hi")
    assert load_generate({"model": "demo"}).messages == []


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "hi"},
        {"messages": [{"role": 5}]},
        {"messages": MESSAGES, "stream": "yes"},
        {"messages": MESSAGES, "think": "very"},
        {"messages": MESSAGES, "top_logprobs": 21},
        {"messages": MESSAGES, "keep_alive": "soon"},
        {"messages": [{"role": "user", "images": ["?"]}]},
    ],
)
def test_what_is_wrong_is_a_400(fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as raised:
        load_chat({"model": "demo", **fields})
    assert raised.value.status == 400
