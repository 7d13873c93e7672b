"""The clock of an upstream's waits goes with its upstream, and never before the last of them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket as gsocket

from ollama_proxy.upstreams.transport.session import Pool
from ollama_proxy.upstreams.transport.wait_timer import TICK_S, Alarm


@pytest.fixture
def silent() -> Iterator[object]:
    """A watcher of a socket on which nothing ever comes."""
    ours, theirs = gsocket.socketpair()
    with ours, theirs:
        yield gevent.get_hub().loop.io(ours.fileno(), 1)


def wait_shortly(alarm: Alarm, silent: object) -> bool:
    return alarm.wait(silent, time.monotonic() + 0.01)


def is_over(greenlet: gevent.Greenlet[..., None] | None) -> bool:
    """Whether it comes to its end."""
    assert greenlet is not None
    greenlet.join(timeout=5)
    return bool(greenlet.dead)


def test_a_closed_alarm_lets_its_greenlet_go(silent: object) -> None:
    alarm = Alarm()
    assert not wait_shortly(alarm, silent)
    greenlet = alarm._greenlet
    assert greenlet is not None and not greenlet.dead
    alarm.close()
    assert is_over(greenlet)


def test_a_wait_that_outlives_the_end_of_its_alarm_still_ends(silent: object) -> None:
    alarm = Alarm()
    waiting = gevent.spawn(alarm.wait, silent, time.monotonic() + 2 * TICK_S)
    gevent.sleep(0)
    first = alarm._greenlet
    alarm.close()
    assert waiting.get(timeout=5) is False
    assert is_over(first)
    later = gevent.spawn(wait_shortly, alarm, silent)
    gevent.sleep(0)
    second = alarm._greenlet
    assert later.get(timeout=5) is False
    assert is_over(second)


def test_a_pool_closes_its_own_alarm_and_no_other(silent: object) -> None:
    shared, own = Alarm(), Pool("http://127.0.0.1:1", None)
    assert not wait_shortly(shared, silent)
    assert not wait_shortly(own._alarm, silent)
    greenlet, others = own._alarm._greenlet, shared._greenlet
    own.close()
    Pool("http://127.0.0.1:1", None, alarm=shared).close()
    assert is_over(greenlet)
    assert others is not None and not others.dead
    shared.close()
    assert is_over(others)
