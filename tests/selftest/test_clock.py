"""The clocks of tests."""

from __future__ import annotations

import time

import gevent
from gevent.event import Event

from tests.rig.clock import START_S, ManualClock, SkippingClock


def test_time_passes_only_by_hand() -> None:
    clock = ManualClock()
    before = clock.time()
    clock.advance(1.5)
    assert (clock.monotonic(), clock.time() - before) == (START_S + 1.5, 1.5)


def test_only_the_wall_clock_can_be_set() -> None:
    clock = ManualClock()
    clock.set_time(60.0)
    assert (clock.monotonic(), clock.time()) == (START_S, 60.0)


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    def sleep(name: str, *pauses: float) -> None:
        for pause_s in pauses:
            clock.sleep(pause_s)
            woken.append((name, clock.monotonic() - START_S))

    for name, pauses in {"late": (3.0,), "often": (1.0, 1.0, 1.0), "early": (0.5,)}.items():
        gevent.spawn(sleep, name, *pauses)
    clock.advance(2.9)
    assert woken == [("early", 0.5), ("often", 1.0), ("often", 2.0)]
    clock.advance(0.2)
    assert woken[3:] == [("late", 3.0), ("often", 3.0)]
    assert clock.sleeping == 0


def test_what_wakes_others_does_so_before_time_goes_on() -> None:
    clock, events = ManualClock(), [Event() for _ in range(200)]
    seen: list[float] = []

    def pass_on(number: int) -> None:
        events[number].wait()
        seen.append(clock.monotonic() - START_S)
        if number + 1 < len(events):
            events[number + 1].set()

    for number in range(len(events)):
        gevent.spawn(pass_on, number)

    def begin() -> None:
        clock.sleep(1)
        events[0].set()

    gevent.spawn(begin)
    clock.advance(5)
    assert seen == [1.0] * len(events)


def test_a_wait_ends_with_its_event_or_with_its_time() -> None:
    clock, event, never = ManualClock(), Event(), Event()
    waits = [gevent.spawn(clock.wait, each, 2.0) for each in (event, never)]
    clock.advance(1)
    event.set()
    clock.advance(0)
    assert (waits[0].value, waits[1].ready(), clock.sleeping) == (True, False, 1)
    clock.advance(1)
    assert waits[1].value is False
    assert clock.wait(event, 0) and not clock.wait(never, 0)


def test_a_wait_without_a_limit_ends_with_its_event() -> None:
    clock, event = ManualClock(), Event()
    wait = gevent.spawn(clock.wait, event)
    clock.advance(10**6)
    assert not wait.ready()
    event.set()
    assert wait.get()


def test_a_join_ends_with_its_greenlets_or_with_its_time() -> None:
    clock = ManualClock()
    short, long = gevent.spawn(clock.sleep, 1), gevent.spawn(clock.sleep, 3)
    joins = [gevent.spawn(clock.join, [short], 2), gevent.spawn(clock.join, [short, long], 2)]
    clock.advance(1)
    assert [join.ready() for join in joins] == [True, False]
    clock.advance(1)
    assert joins[1].ready() and not long.ready()
    clock.join([])
    clock.advance(1)


def test_a_sleeper_that_is_killed_is_forgotten() -> None:
    clock = ManualClock()
    sleeper = gevent.spawn(clock.sleep, 1)
    clock.advance(0)
    assert clock.sleeping == 1
    sleeper.kill()
    assert clock.sleeping == 0


def test_what_skips_its_pauses_takes_no_time_and_sees_it_pass() -> None:
    clock, event = SkippingClock(), Event()
    began, really_began = clock.monotonic(), time.monotonic()
    clock.sleep(1000)
    assert not clock.wait(event, 1000)
    event.set()
    assert clock.wait(event, 1000)
    assert 2000 <= clock.monotonic() - began < 2100
    assert time.monotonic() - really_began < 100
