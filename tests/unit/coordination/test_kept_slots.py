"""Slots that are kept are used again by requests of the same kind, and given back soon."""

from __future__ import annotations

import time

import gevent
import pytest

from ollama_proxy.coordination.kept_slots import KEPT_S, KeptSlots, Slot
from ollama_proxy.coordination.state import Outcome


@pytest.fixture
def given_back() -> list[str]:
    return []


@pytest.fixture
def kept(given_back: list[str]) -> KeptSlots:
    return KeptSlots(lambda slot: given_back.append(slot.id))


def wait_for(given_back: list[str], expected: list[str]) -> None:
    ends_at = time.monotonic() + 10
    while given_back != expected:
        assert time.monotonic() < ends_at
        gevent.sleep(KEPT_S / 5)


def test_only_a_request_of_the_same_kind_takes_a_slot(kept: KeptSlots) -> None:
    slot = Slot("1", "box1", "a")
    kept.keep(slot)
    assert kept.take("b") is None
    assert kept.take("a") is slot
    assert kept.take("a") is None


def test_slots_that_nobody_takes_are_given_back(kept: KeptSlots, given_back: list[str]) -> None:
    kept.keep(Slot("1", "box1", "a"))
    gevent.sleep(KEPT_S / 2)
    kept.keep(Slot("2", "box1", "b"))
    wait_for(given_back, ["1", "2"])
    assert kept.take("a") is None


def test_slots_are_called_back_and_none_are_kept_for_a_while(kept: KeptSlots, given_back: list[str]) -> None:
    kept.keep(Slot("1", "box1", "a"))
    kept.keep(Slot("2", "box2", "a"))
    kept.call_back(["box1"])
    assert given_back == ["1"]
    kept.keep(Slot("3", "box1", "a"))
    assert given_back == ["1", "3"]
    assert kept.take("a")


def test_slots_of_a_lost_coordinator_are_forgotten(kept: KeptSlots, given_back: list[str]) -> None:
    kept.keep(Slot("1", "box1", "a"))
    kept.clear()
    gevent.sleep(2 * KEPT_S)
    assert given_back == []


def test_what_all_requests_took_is_charged_when_the_slot_is_given_back() -> None:
    slot = Slot("1", "box1", "a")
    for gpu_s in (1.0, 2.0, 4.0):
        slot.note(Outcome(gpu_s=gpu_s))
    assert slot.outcome == Outcome(gpu_s=4.0, earlier_gpu_s=3.0)
