"""Which upstreams can be used right now: asked from time to time, and when somebody asks and it was long ago."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent
from gevent.lock import BoundedSemaphore

from ollama_proxy.errors import GatewayError
from ollama_proxy.streaming import Call
from ollama_proxy.telemetry import log
from ollama_proxy.timeouts import Timeouts
from ollama_proxy.upstreams.base import Upstream
from ollama_proxy.upstreams.fleet import Fleet

#: Seconds between two checks, and how old an answer may be that is given out.
INTERVAL_S = 5.0
FRESH_S = 2.0

#: One check may take this long, in seconds.
LIMITS = Timeouts(connect_s=1.5, first_byte_s=2.0, idle_s=2.0, total_s=3.0)


@dataclass(slots=True, frozen=True)
class State:
    """What the last check found; `reason` is for the operator."""

    usable: bool
    version: str = ""
    reason: str = ""


class Health:
    """The state of every upstream of a fleet; `fleet` is asked anew each time, because a reload may change it."""

    def __init__(self, fleet: Callable[[], Fleet]) -> None:
        self._fleet = fleet
        self._states: dict[str, State] = {}
        self._checked_at = float("-inf")
        # Anybody may ask for the health, so asking must not add up.
        self._one_at_a_time = BoundedSemaphore()

    def states(self) -> dict[str, State]:
        """State by name, at most two seconds old."""
        with self._one_at_a_time:
            if time.monotonic() - self._checked_at > FRESH_S:
                self.check()
        return self._states

    def check(self) -> None:
        """Asks every upstream now; says in the log who came and who went."""
        before = self._states
        self._states = {upstream.name: check_upstream(upstream) for upstream in self._fleet().upstreams}
        self._checked_at = time.monotonic()
        for name, state in self._states.items():
            if name not in before or before[name].usable != state.usable:
                event = "upstream_up" if state.usable else "upstream_down"
                log.warning(
                    event, extra={"fields": {"upstream": name, "version": state.version, "reason": state.reason}}
                )

    def run(self) -> None:
        """Checks for ever; for a greenlet of its own."""
        while True:
            try:
                with self._one_at_a_time:
                    self.check()
            except Exception as error:  # no answer of an upstream may end the checks for good
                log.error("health_check_failed", exc_info=error)
            gevent.sleep(INTERVAL_S)


def check_upstream(upstream: Upstream) -> State:
    """Whether it answers, by its version."""
    try:
        return State(True, upstream.version(Call(LIMITS)))
    except GatewayError as error:
        return State(False, reason=error.detail or str(error))
