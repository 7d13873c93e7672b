"""The clock of an upstream's waits goes with its upstream, and never before the last of them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket as gsocket

from ollama_proxy.upstreams.transport.session import Pool
from ollama_proxy.upstreams.transport.wait_timer import TICK_S, WaitTimer


@pytest.fixture
def silent() -> Iterator[object]:
    """A watcher of a socket on which nothing ever comes."""
    ours, theirs = gsocket.socketpair()
    with ours, theirs:
        yield gevent.get_hub().loop.io(ours.fileno(), 1)


def wait_shortly(wait_timer: WaitTimer, silent: object) -> bool:
    return wait_timer.wait(silent, time.monotonic() + 0.01)


def is_over(greenlet: gevent.Greenlet[..., None] | None) -> bool:
    """Whether it comes to its end."""
    assert greenlet is not None
    greenlet.join(timeout=5)
    return bool(greenlet.dead)


def test_a_closed_alarm_lets_its_greenlet_go(silent: object) -> None:
    wait_timer = WaitTimer()
    assert not wait_shortly(wait_timer, silent)
    greenlet = wait_timer._greenlet
    assert greenlet is not None and not greenlet.dead
    wait_timer.close()
    assert is_over(greenlet)


def test_a_wait_that_outlives_the_end_of_its_alarm_still_ends(silent: object) -> None:
    wait_timer = WaitTimer()
    waiting = gevent.spawn(wait_timer.wait, silent, time.monotonic() + 2 * TICK_S)
    gevent.sleep(0)
    first = wait_timer._greenlet
    wait_timer.close()
    assert waiting.get(timeout=5) is False
    assert is_over(first)
    later = gevent.spawn(wait_shortly, wait_timer, silent)
    gevent.sleep(0)
    second = wait_timer._greenlet
    assert later.get(timeout=5) is False
    assert is_over(second)


def test_a_pool_closes_its_own_alarm_and_no_other(silent: object) -> None:
    shared, own = WaitTimer(), Pool("http://127.0.0.1:1", None)
    assert not wait_shortly(shared, silent)
    assert not wait_shortly(own._wait_timer, silent)
    greenlet, others = own._wait_timer._greenlet, shared._greenlet
    own.close()
    Pool("http://127.0.0.1:1", None, wait_timer=shared).close()
    assert is_over(greenlet)
    assert others is not None and not others.dead
    shared.close()
    assert is_over(others)
