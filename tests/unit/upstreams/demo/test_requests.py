"""Requests to the demo model: what is read, and what is refused."""

from __future__ import annotations

from ollama_proxy.upstreams.demo.requests import load_chat, load_generate, load_object

MESSAGES = [{"role": "user", "content": "hi"}]


def test_null_is_absent() -> None:
    assert load_object(b'{"model": "demo", "stream": null}') == {"model": "demo"}


def test_a_chat() -> None:
    asked = load_chat(
        {
            "model": "demo",
            "messages": MESSAGES,
            "think": "high",
            "logprobs": True,
            "top_logprobs": 2,
        }
    )
    assert (asked.stream, asked.think, asked.top_logprobs, asked.is_unload) == (
        True,
        True,
        2,
        False,
    )
    assert load_chat({"model": "demo", "keep_alive": "0s"}).is_unload


def test_a_completion_is_a_chat_of_one_message() -> None:
    [message] = load_generate({"model": "demo", "prompt": "hi"}).messages
    assert (message["role"], message["content"]) == ("user", "hi")
    assert load_generate({"model": "demo"}).messages == []
