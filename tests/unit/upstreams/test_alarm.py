"""The clock of an upstream's waits goes with its upstream, and never before the last of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket as gsocket

from ollama_proxy.upstreams.alarm import TICK_S, Alarm
from ollama_proxy.upstreams.transport import Pool


@pytest.fixture
def silent() -> Iterator[object]:
    """A watcher of a socket on which nothing ever comes."""
    ours, theirs = gsocket.socketpair()
    with ours, theirs:
        yield gevent.get_hub().loop.io(ours.fileno(), 1)


def running() -> int:
    """Greenlets of alarms that are alive."""
    found = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.dead]
    return len([each for each in found if getattr(getattr(each, "_run", None), "__func__", None) is Alarm._run])


def wait_shortly(alarm: Alarm, silent: object) -> bool:
    return alarm.wait(silent, time.monotonic() + 0.01)


def test_a_closed_alarm_lets_its_greenlet_go(silent: object) -> None:
    before, alarm = running(), Alarm()
    assert not wait_shortly(alarm, silent)
    assert running() == before + 1
    alarm.close()
    gevent.sleep(2 * TICK_S)
    assert running() == before


def test_a_wait_that_outlives_the_end_of_its_alarm_still_ends(silent: object) -> None:
    before, alarm = running(), Alarm()
    waiting = gevent.spawn(alarm.wait, silent, time.monotonic() + 2 * TICK_S)
    gevent.sleep(0)
    alarm.close()
    assert waiting.get(timeout=5) is False
    assert not wait_shortly(alarm, silent)
    gevent.sleep(2 * TICK_S)
    assert running() == before


def test_a_pool_closes_its_own_alarm_and_no_other(silent: object) -> None:
    before, shared, own = running(), Alarm(), Pool("http://127.0.0.1:1", None)
    assert not wait_shortly(shared, silent)
    assert not wait_shortly(own._alarm, silent)
    own.close()
    Pool("http://127.0.0.1:1", None, alarm=shared).close()
    gevent.sleep(3 * TICK_S)
    assert running() == before + 1
    shared.close()
    gevent.sleep(2 * TICK_S)
