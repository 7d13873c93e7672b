"""Long loops give other greenlets a turn."""

from __future__ import annotations

import gevent

from ollama_proxy.upstreams.pacing import ITEMS_PER_TURN, pace


def test_items_come_as_they_are() -> None:
    assert list(pace(range(3 * ITEMS_PER_TURN))) == list(range(3 * ITEMS_PER_TURN))


def test_others_run_after_every_so_many_items() -> None:
    reached, seen = 0, set[int]()

    def other() -> None:
        while True:
            seen.add(reached)
            gevent.sleep(0)

    greenlet = gevent.spawn(other)
    for item in pace(range(1, 3 * ITEMS_PER_TURN)):
        reached = item
    during = seen - {reached}
    greenlet.kill()
    assert during == {ITEMS_PER_TURN, 2 * ITEMS_PER_TURN}
