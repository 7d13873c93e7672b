"""Exchanges of a token that run at the same time."""

from __future__ import annotations

from ollama_proxy.coordination.concurrency import MemoryConcurrency


def test_no_more_run_than_the_limit_and_each_is_counted_once() -> None:
    concurrency = MemoryConcurrency()
    assert [concurrency.enter("token:a", name, 2) for name in ("one", "two", "three")] == [True, True, False]
    assert (concurrency.count("token:a"), concurrency.count("token:b")) == (2, 0)
    for _ in range(2):
        concurrency.leave("token:a", "one")
    assert concurrency.count("token:a") == 1
    assert concurrency.enter("token:a", "three", 2)
