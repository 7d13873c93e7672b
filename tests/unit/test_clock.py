"""The system's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import BuiltinFunctionType

import gevent
from gevent.event import Event

from ollama_proxy.clock import SYSTEM_CLOCK


def test_reading_the_time_is_one_call_of_a_c_function() -> None:
    for read in (SYSTEM_CLOCK.monotonic, SYSTEM_CLOCK.time):
        assert isinstance(read, BuiltinFunctionType)
    assert (SYSTEM_CLOCK.monotonic, SYSTEM_CLOCK.time) == (time.monotonic, time.time)


def test_it_knows_the_date() -> None:
    before = datetime.now(UTC)
    assert before <= SYSTEM_CLOCK.now(UTC) <= datetime.now(UTC)


def test_a_sleeper_lets_others_run() -> None:
    event = Event()
    gevent.spawn(event.set)
    SYSTEM_CLOCK.sleep(0.001)
    assert event.is_set()


def test_a_wait_tells_whether_the_event_came() -> None:
    event = Event()
    assert not SYSTEM_CLOCK.wait(event, 0.001)
    gevent.spawn(event.set)
    assert SYSTEM_CLOCK.wait(event, 60) and SYSTEM_CLOCK.wait(event)


def test_a_join_ends_with_its_greenlets_or_with_its_time() -> None:
    never = gevent.spawn(Event().wait)
    SYSTEM_CLOCK.join([never], 0.001)
    assert not never.ready()
    done = gevent.spawn(str)
    SYSTEM_CLOCK.join([done], 60)
    assert done.ready()
    never.kill()
