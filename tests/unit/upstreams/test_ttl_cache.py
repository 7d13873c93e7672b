"""What is remembered of an upstream's models: for how long, how much, and what happens when nobody tells."""

from __future__ import annotations

import pytest

from ollama_proxy.errors import ClientGone, GatewayError, UpstreamConnect, UpstreamRefused, UpstreamTimeout
from ollama_proxy.settings.timeouts import Timeouts
from ollama_proxy.upstreams import ttl_cache
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ttl_cache import WAIT_S, TtlCache


class Source:
    """Tells a new number each time, or fails."""

    def __init__(self, *failures: GatewayError) -> None:
        self.calls: list[Call] = []
        self._failures = list(failures)

    def __call__(self, call: Call) -> int:
        self.calls.append(call)
        if self._failures:
            raise self._failures.pop(0)
        return len(self.calls)


@pytest.fixture
def call() -> Call:
    return Call(Timeouts())


def test_a_fact_is_asked_for_once(call: Call) -> None:
    known, source = TtlCache[int](60), Source()
    assert [known.get("a", call, source) for _ in range(3)] == [1, 1, 1]


def test_each_key_has_its_own_fact(call: Call) -> None:
    known, source = TtlCache[int](60), Source()
    assert [known.get(key, call, source) for key in ("a", "b", "a")] == [1, 2, 1]


def test_an_old_fact_is_asked_for_again(call: Call) -> None:
    known, source = TtlCache[int](0.0), Source()
    assert [known.get("a", call, source) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("failure", [UpstreamConnect(), UpstreamTimeout(), UpstreamRefused(404, "no")])
def test_no_fact_is_no_failure_and_is_not_asked_for_at_once_again(failure: GatewayError, call: Call) -> None:
    known, source = TtlCache[int](60), Source(failure)
    assert [known.get(key, call, source) for key in "aab"] == [None, None, 2]


def test_what_nobody_told_is_asked_for_again_after_a_while(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ttl_cache, "UNKNOWN_KEPT_S", 0.0)
    known, source = TtlCache[int](60), Source(UpstreamTimeout())
    assert [known.get("a", call, source) for _ in range(3)] == [None, 2, 2]


def test_caller_who_has_no_time_leaves_nothing_to_the_others(call: Call) -> None:
    known, source = TtlCache[int](60), Source(UpstreamTimeout())
    assert known.get("a", Call(Timeouts(total_s=0.0)), source) is None
    assert known.get("a", call, source) == 2


def test_client_that_has_left_is_not_forgotten(call: Call) -> None:
    with pytest.raises(ClientGone):
        TtlCache[int](60).get("a", call, Source(ClientGone()))


def test_the_upstream_has_little_time_to_tell_and_the_call_keeps_its_own(call: Call) -> None:
    source, before = Source(), call.timeouts
    TtlCache[int](60).get("a", call, source)
    waits = source.calls[0].timeouts
    assert (waits.first_byte_s, waits.idle_s, waits.total_s) == (WAIT_S,) * 3
    assert call.timeouts == before


def test_asking_ends_no_later_than_the_call_and_leaves_with_it() -> None:
    call, source = Call(Timeouts(total_s=0.5)), Source()
    TtlCache[int](60).get("a", call, source)
    assert source.calls[0].ends_at == call.ends_at
    call.leave()
    assert source.calls[0].ended


def test_only_so_many_are_kept_and_the_oldest_goes(call: Call) -> None:
    known, source = TtlCache[int](60, most=2), Source()
    assert [known.get(key, call, source) for key in "abcbca"] == [1, 2, 3, 2, 3, 4]
