"""Health checks: each upstream is checked from time to time, independently, so that one that
hangs delays no other."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import gevent

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import GatewayError, UpstreamConnect, UpstreamCut, UpstreamTimeout
from ollama_proxy.texts import Translatable
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.model_index import HEALTH_CHECK_TIMEOUTS, Fleet
from ollama_proxy.upstreams.fleet.node import QUICK_S, Node, State

log = logging.getLogger(__name__)

#: Seconds between two checks of an Ollama box, of a provider, and of what is down.
INTERVAL_S, PROVIDER_INTERVAL_S, DOWN_INTERVAL_S = 5.0, 60.0, 1.0

#: How old a state may be that is returned, and how long callers wait for a newer one: less if
#: another upstream is known to be usable; in seconds.
FRESH_S, WAIT_S, SHORT_WAIT_S = 2.0, 3.2, 0.5

#: One lost answer is no outage: a second check follows after so many seconds.
SECOND_LOOK_S = 0.1

#: Changes of one upstream's state are logged at most so often in so many seconds: one that flaps
#: does not fill the log.
MOST_SAID, SAID_IN_S = 6, 60.0


@dataclass(slots=True, eq=False)
class Health:
    """Checks the nodes of a fleet."""

    #: Called each time, because a reload may change the fleet.
    _fleet: Callable[[], Fleet]
    #: Gets each node after its check; the loaded models are as new only if it has `concurrency`.
    report: Callable[[Node], None] = field(default=lambda node: None, kw_only=True)
    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    _checks: dict[Node, gevent.Greenlet[[Node], None]] = field(default_factory=dict)
    #: Monotonic times of the last check, and of the last log lines with the last
    #: state that was logged.
    _checked_at: dict[Node, float] = field(default_factory=dict)
    _said: dict[Node, tuple[deque[float], bool]] = field(default_factory=dict)

    def states(self) -> dict[str, State]:
        """State by name, at most two seconds old unless an upstream takes longer to answer."""
        self.check(FRESH_S)
        unknown = State(False, reason=Translatable("not checked yet"))
        return {node.name: node.state or unknown for node in self._fleet().nodes}

    def check(self, max_age_s: float = 0.0) -> None:
        """Checks the nodes that were not checked for that long, and waits for the results;
        concurrent callers wait for the same check."""
        oldest = self.clock.monotonic() - max_age_s
        nodes = self._fleet().nodes
        checks = [
            self._checker(node)
            for node in nodes
            if self._checked_at.get(node, float("-inf")) < oldest
        ]
        is_known = any(node.state and node.state.usable for node in nodes if len(nodes) > 1)
        self.clock.join(checks, SHORT_WAIT_S if is_known else WAIT_S)

    def run(self) -> None:
        """Checks forever; for a greenlet of its own."""
        while True:
            nodes = self._fleet().nodes
            for known in (self._checks, self._checked_at, self._said):
                for node in known.keys() - set(nodes):
                    del known[node]
            now = self.clock.monotonic()
            for node in nodes:
                if now - self._checked_at.get(node, float("-inf")) >= _interval_s(node):
                    self._checker(node)
            self.clock.sleep(DOWN_INTERVAL_S)

    def _checker(self, node: Node) -> gevent.Greenlet[[Node], None]:
        running = self._checks.get(node)
        if running is None or running.dead:
            running = self._checks[node] = gevent.spawn(self._check, node)
        return running

    def _check(self, node: Node) -> None:
        try:
            state = check_upstream(node, self.clock)
            if not state.usable and (node.state is None or node.state.usable):
                self.clock.sleep(SECOND_LOOK_S)
                state = check_upstream(node, self.clock)
            self._take(node, state)
            if node.declared.concurrency and state.usable:
                node.has_loaded = False
                with suppress(GatewayError):
                    node.models.fetch_loaded(Call(HEALTH_CHECK_TIMEOUTS, self.clock))
            self.report(node)
            fleet = self._fleet()
            if state.usable and not fleet.is_single and not node.declared.drain:
                fleet.learn(node)
        except Exception as error:  # no answer of an upstream may end the checks for good
            log.error("health_check_failed", exc_info=error)
        self._checked_at[node] = self.clock.monotonic()

    def _take(self, node: Node, state: State) -> None:
        node.state = state
        if state.reached:
            node.connection.succeeded()
        else:
            node.lost(quickly=state.refused)
        # Only changes are logged.
        times, usable = self._said.get(node, (deque[float](maxlen=MOST_SAID), None))
        is_noise = len(times) == MOST_SAID and self.clock.monotonic() - times[0] < SAID_IN_S
        if usable == state.usable or is_noise:
            return
        times.append(self.clock.monotonic())
        self._said[node] = (times, state.usable)
        event = "upstream_up" if state.usable else "upstream_down"
        log.warning(
            event,
            extra={
                "fields": {"upstream": node.name, "version": state.version, "reason": state.reason}
            },
        )


def _interval_s(node: Node) -> float:
    is_down = not node.connection.is_closed or (
        node.is_ollama_node and node.state is not None and not node.state.usable
    )
    if is_down or node.has_loaded:
        return DOWN_INTERVAL_S
    # A provider that refuses our key will not change its mind in a second.
    return INTERVAL_S if node.is_ollama_node else PROVIDER_INTERVAL_S


def check_upstream(node: Node, clock: Clock = SYSTEM_CLOCK) -> State:
    """The state of an upstream, by its version."""
    try:
        return State(True, node.upstream.version(Call(HEALTH_CHECK_TIMEOUTS, clock)))
    except GatewayError as error:
        if not node.is_ollama_node and isinstance(error, UpstreamTimeout | UpstreamCut):
            # A provider's list of models may be slow; its answers show whether it works.
            return State(True, reason=error.detail or str(error))
        lost = isinstance(error, UpstreamConnect | UpstreamTimeout | UpstreamCut)
        refused = isinstance(error, UpstreamConnect) and error.took_s < QUICK_S
        return State(False, reason=error.detail or str(error), reached=not lost, refused=refused)
