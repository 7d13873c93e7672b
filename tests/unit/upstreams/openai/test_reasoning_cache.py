"""Thoughts that are kept for the calls that they led to: within limits, the oldest going first."""

from __future__ import annotations

import pytest

from ollama_proxy.hub import Message, ToolCall
from ollama_proxy.upstreams.openai import reasoning_cache
from ollama_proxy.upstreams.openai.reasoning_cache import ReasoningCache, Thought

ASKED = Message("user", "hi")


def call(number: int) -> list[ToolCall]:
    return [ToolCall(f"c{number}", "f", {"n": number})]


def test_memory_has_a_limit() -> None:
    cache = ReasoningCache(max_bytes=45_000)
    for number in range(5):
        cache.keep(ASKED, call(number), Thought("x" * 10_000))
    # Each is kept under two names.
    assert [cache.find(ASKED, call(number)) is not None for number in range(5)] == [False, False, False, True, True]


def test_a_thought_that_is_kept_again_counts_once() -> None:
    cache = ReasoningCache(max_bytes=45_000)
    cache.keep(ASKED, call(0), Thought("x" * 10_000))
    for _ in range(5):
        cache.keep(ASKED, call(1), Thought("y" * 10_000))
    assert cache.find(ASKED, call(0)) == Thought("x" * 10_000)


def test_one_thought_may_not_take_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_cache, "MOST_CHARS_EACH", 5)
    cache = ReasoningCache()
    cache.keep(ASKED, call(0), Thought("x" * 6))
    cache.keep(ASKED, call(1), Thought("", [{"data": "xxxxxx"}]))
    cache.keep(ASKED, call(2), Thought(""))
    assert [cache.find(ASKED, call(number)) for number in range(3)] == [None] * 3


def test_without_calls_there_is_nothing_to_keep_or_find() -> None:
    cache = ReasoningCache()
    cache.keep(None, [], Thought("x"))
    assert cache.find(None, []) is None


def test_a_talk_may_begin_with_calls() -> None:
    cache = ReasoningCache()
    cache.keep(None, call(1), Thought("x"))
    assert cache.find(None, call(1)) == Thought("x")
    assert cache.find(ASKED, call(1)) is None
