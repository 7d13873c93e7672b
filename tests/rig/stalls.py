"""How long the machine stood still in a time that a test has measured: that is not the product's
doing."""

from __future__ import annotations

import time

from tests.rig.probe_process import TICK_S, Machine

_MACHINE = Machine()
#: No test has a bound below this.
_SHORT_S = 0.05


def seconds_without_stalls(began: float, ended: float | None = None) -> float:
    """From one monotonic time to another, or to now, less what the machine stood still meanwhile.

    A worker that is busy does not stop the thread that watches the machine, so its time counts.
    """
    ended = time.monotonic() if ended is None else ended
    if ended - began > _SHORT_S:
        time.sleep(3 * TICK_S)  # after a pause, the thread that watches may be the last to wake
    return ended - began - _MACHINE.lateness_ms(began, ended) / 1000
