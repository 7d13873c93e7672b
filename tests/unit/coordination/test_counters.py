"""The storage of limits in memory counts as that of the package `limits` does."""

from __future__ import annotations

import time

import limits.storage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.coordination.counters import MemoryStorage
from tests.rig.clock import ManualClock


class QuietStorage(limits.storage.MemoryStorage):
    """Starts no thread, which would wait by the clock of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.timer.cancel()
        self.timer = Idle()  # type: ignore[assignment]


class Idle:
    def is_alive(self) -> bool:
        return True


PAUSES_S = [0.0, 0.5, 1.0, 29.5, 59.0, 60.0, 61.0, 119.0, 250.0]


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(PAUSES_S), st.booleans(), st.sampled_from("ab"), st.integers(1, 9)
        ),
        max_size=40,
    )
)
def test_counts_as_the_package_does(calls: list[tuple[float, bool, str, int]]) -> None:
    clock = ManualClock()
    clock.now_s = 1_700_000_000 // 60 * 60.0  # a whole minute, at which windows of the package end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", clock.monotonic)  # that of the package
        storages = MemoryStorage(clock), QuietStorage()
        for pause_s, is_window, key, amount in calls:
            clock.advance(pause_s)
            own, expected = (
                each.acquire_sliding_window_entry(key, 10, 60, amount)
                if is_window
                else each.incr(key, 100, amount)
                for each in storages
            )
            assert own == expected
            own, expected = (each.get(key) for each in storages)
            assert own == expected
            seen = [each.get_sliding_window(key, 60) for each in storages]
            assert seen[0] == pytest.approx(seen[1])


def test_counter_is_raised_only_as_far_as_it_is_lower() -> None:
    storage = MemoryStorage(ManualClock())
    storage.raise_to("a", 60, 5)
    storage.incr("a", 60, 3)
    storage.raise_to("a", 60, 7)
    assert storage.get("a") == 8
    storage.raise_to("a", 60, 10)
    assert storage.get("a") == 10
