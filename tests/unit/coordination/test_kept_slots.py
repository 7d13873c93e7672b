"""Slots that are kept are used again by requests of the same kind, and given back soon."""

from __future__ import annotations

import pytest

from ollama_proxy.coordination.kept_slots import KEPT_S, KeptSlots, Slot
from ollama_proxy.coordination.state import Outcome
from tests.rig.clock import ManualClock


@pytest.fixture
def given_back() -> list[str]:
    return []


@pytest.fixture
def kept(given_back: list[str], clock: ManualClock) -> KeptSlots:
    return KeptSlots(lambda slot: given_back.append(slot.id), clock=clock)


def test_only_a_request_of_the_same_kind_takes_a_slot(kept: KeptSlots) -> None:
    slot = Slot("1", "box1", "a")
    kept.keep(slot)
    assert kept.take("b") is None
    assert kept.take("a") is slot
    assert kept.take("a") is None


def test_slots_that_nobody_takes_are_given_back(
    kept: KeptSlots, given_back: list[str], clock: ManualClock
) -> None:
    kept.keep(Slot("1", "box1", "a"))
    clock.advance(KEPT_S / 2)
    kept.keep(Slot("2", "box1", "b"))
    kept.give_back_old()
    assert not given_back
    clock.advance(KEPT_S * 0.6)
    kept.give_back_old()
    assert given_back == ["1"] and kept.slots
    clock.advance(KEPT_S)
    kept.give_back_old()
    assert given_back == ["1", "2"] and not kept.slots
    assert kept.take("a") is None


def test_slots_are_called_back_and_none_are_kept_for_a_while(
    kept: KeptSlots, given_back: list[str]
) -> None:
    kept.keep(Slot("1", "box1", "a"))
    kept.keep(Slot("2", "box2", "a"))
    kept.call_back(["box1"])
    assert given_back == ["1"]
    kept.keep(Slot("3", "box1", "a"))
    assert given_back == ["1", "3"]
    assert kept.take("a")


def test_slots_of_a_lost_coordinator_are_forgotten(kept: KeptSlots, given_back: list[str]) -> None:
    kept.keep(Slot("1", "box1", "a"))
    kept.slots.clear()
    assert given_back == [] and not kept.slots


def test_what_all_requests_took_is_charged_when_the_slot_is_given_back() -> None:
    slot = Slot("1", "box1", "a")
    for gpu_s in (1.0, 2.0, 4.0):
        slot.note(Outcome(gpu_s=gpu_s))
    assert (slot.outcome, slot.earlier_gpu_s) == (Outcome(gpu_s=4.0), 3.0)
