"""Thinking between tags in the text, however the text was cut."""

from __future__ import annotations

import pytest

from ollama_proxy.hub import Done, collect
from ollama_proxy.upstreams.openai.inline_thinking import InlineThinking

TEXTS = {
    "plain": ("Hello", "", "Hello"),
    "thinking first": ("<think>\nhm, <b>\n</think>\n\nHello", "hm, <b>\n", "Hello"),
    "blanks before it": ("\n <think>hm</think>Hello", "hm", "Hello"),
    "a tag later is text": ("Say <think>no</think>", "", "Say <think>no</think>"),
    "a tag behind the thinking is text": ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    "no thoughts": ("<think></think>\n\nHello", "", "Hello"),
    "never closed": ("<think>hm </thin", "hm </thin", ""),
    "something like a tag": ("<thinker>Hello", "", "<thinker>Hello"),
    "only the beginning of a tag": ("<thi", "", "<thi"),
    "nothing else": ("<think>hm</think>", "hm", ""),
    "other languages": ("<think>想</think>世界🎉", "想", "世界🎉"),
}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize(("text", "thinking", "content"), TEXTS.values(), ids=TEXTS)
def test_text_and_thinking_are_told_apart(text: str, thinking: str, content: str, size: int) -> None:
    reader = InlineThinking()
    events = [event for start in range(0, len(text), size) for event in reader.events(text[start : start + size])]
    [answer] = collect([*events, *reader.end(), Done("stop")])
    assert (answer.thinking, answer.content) == (thinking, content)


def test_text_is_not_held_back_once_it_is_certain() -> None:
    reader = InlineThinking()
    assert reader.events("<think>a") != []
    assert reader.events("b</t") != []
    assert [type(event).__name__ for event in reader.events("hink>c")] == ["Content"]
