"""Whether an upstream can be used: one check, and what it changes."""

from __future__ import annotations

import logging

import pytest

from ollama_proxy.upstreams.fleet import health as health_module
from ollama_proxy.upstreams.fleet.health import Health, check_upstream
from ollama_proxy.upstreams.fleet.model_index import Fleet
from tests.unit.upstreams.stock import node, stock


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "SECOND_LOOK_S", 0.001)


def test_one_that_answers_is_usable() -> None:
    state = check_upstream(node("one", "m"))
    assert (state.usable, state.version) == (True, "1")


def test_one_that_can_not_be_reached_is_not() -> None:
    one = node("one", "m")
    stock(one).down = True
    state = check_upstream(one)
    assert (state.usable, state.reached) == (False, False)


def test_one_failure_is_checked_again_before_it_counts() -> None:
    one = node("one", "m")
    health = Health(lambda: Fleet([one]))
    stock(one).down = True
    asked = stock(one).asked
    health.check()
    assert stock(one).asked == asked + 2
    assert not health.states()["one"].usable


def test_a_fresh_state_is_given_without_asking() -> None:
    one = node("one", "m")
    health = Health(lambda: Fleet([one]))
    assert health.states()["one"].usable
    asked = stock(one).asked
    assert health.states()["one"].usable
    assert stock(one).asked == asked


def test_going_and_coming_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    one = node("one", "m")
    health = Health(lambda: Fleet([one]))
    with caplog.at_level(logging.WARNING):
        for down in (False, False, True, True, False):
            stock(one).down = down
            health.check()
    assert caplog.messages == ["upstream_up", "upstream_down", "upstream_up"]


def test_one_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = node("slow", "m"), node("quick", "m")
    health = Health(lambda: Fleet([slow, quick]))
    health.check()
    monkeypatch.setattr(health_module, "SHORT_WAIT_S", 0.05)
    stock(slow).hangs_s = 60.0
    stock(quick).down = True
    health.check()
    assert not health.states()["quick"].usable
    assert health.states()["slow"].usable


def test_the_loaded_models_of_a_bounded_node_are_reported_with_each_check() -> None:
    bounded, other = node("bounded", "m", concurrency=1), node("other", "m")
    reported: list[tuple[str, list[str]]] = []
    health = Health(
        lambda: Fleet([bounded, other]),
        report=lambda one: reported.append((one.name, sorted(one.models.loaded))),
    )
    for loaded in (["M:latest"], [], ["n"]):
        stock(bounded).has_loaded = loaded
        health.check()
    assert [names for name, names in reported if name == "bounded"] == [
        ["m:latest"],
        [],
        ["n:latest"],
    ]
    assert [name for name, _ in reported].count("other") == 3


def test_a_node_that_has_loaded_a_model_is_checked_soon() -> None:
    one = node("one", "m", concurrency=1)
    Health(lambda: Fleet([one])).check()
    assert health_module._interval_s(one) == health_module.INTERVAL_S
    one.has_loaded = True
    assert health_module._interval_s(one) == health_module.DOWN_INTERVAL_S
    Health(lambda: Fleet([one])).check()
    assert not one.has_loaded
