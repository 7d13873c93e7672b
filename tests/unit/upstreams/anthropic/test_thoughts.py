"""Signed thinking, kept until the results of its calls come back."""

from __future__ import annotations

from ollama_proxy.upstreams.anthropic.thoughts import SHORTEST_ID, Thoughts

BLOCKS = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
ID = "x" * SHORTEST_ID


def test_they_are_found_by_the_call() -> None:
    thoughts = Thoughts()
    thoughts.keep(ID, BLOCKS)
    assert list(thoughts.of(ID)) == BLOCKS
    assert thoughts.of(ID + "1") == ()


def test_ids_that_two_clients_could_have_are_not_kept() -> None:
    thoughts = Thoughts()
    thoughts.keep("call_1", BLOCKS)
    assert thoughts.of("call_1") == ()


def test_they_have_a_limit() -> None:
    thoughts = Thoughts(max_bytes=2000)
    for number in range(100):
        thoughts.keep(f"{ID}{number}", [{"thinking": "x" * 100}])
    assert thoughts.of(f"{ID}0") == ()
    assert thoughts.of(f"{ID}99")
