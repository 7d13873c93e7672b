"""The greenlets of this process are found, whatever the garbage collector knows of."""

from __future__ import annotations

import gc

import gevent

from tests.rig.greenlets import running_greenlets


def test_a_frozen_one_is_found_and_an_ended_one_is_not() -> None:
    waiting, ended = gevent.spawn(gevent.sleep, 60), gevent.spawn(int)
    ended.join()
    gc.freeze()
    try:
        found = running_greenlets()
        assert any(each is waiting for each in found)
        assert not any(each is ended for each in found)
    finally:
        waiting.kill()
