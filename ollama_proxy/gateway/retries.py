"""One answer, opened on the best node: and once more, there or elsewhere, where nothing can be done twice by that.

Before the first byte only. What never reached a node is sent again; what it refused for being busy goes elsewhere, or
waits as long as a provider says; what it failed with goes to one other node: both only as far as the fleet's store of
retries lasts. What was cut, or took too long, may still have been executed, and is not sent again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import TypeVar

from ollama_proxy.errors import GatewayError, UpstreamConnect, UpstreamError, UpstreamRefused
from ollama_proxy.gateway.exchange import FAILED_STATES, Exchange
from ollama_proxy.hub import Event
from ollama_proxy.upstreams import (
    BUSY,
    QUICK_S,
    Call,
    EventStream,
    Fleet,
    Node,
    Reply,
    Route,
    UpstreamRequest,
    retry_after_s,
)

T = TypeVar("T")

#: Further attempts, at most.
MOST_RETRIES = 3

#: The first pause before the same node is asked again, doubled for each further one, and how long a client is kept
#: waiting by all pauses at most, also where a provider asks for more: no longer than streams are silent; in seconds.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 15.0

#: Statuses of a server that failed, or of a proxy in front of it.
FAILED = frozenset({500, 502, 504})


class RefusedReply(UpstreamRefused):
    """A reply whose status may be a reason to try again; else it is passed on as it is."""

    def __init__(self, reply: Reply, retry_after_s: int | None) -> None:
        super().__init__(reply.status, "", retry_after_s=retry_after_s)
        self.reply = reply


class RunningAttempt:
    """One attempt from its begin to its end: the slot on its node, and its outcome, which is noted once, on the node
    and on the record of the exchange."""

    def __init__(self, node: Node, model: str, exchange: Exchange) -> None:
        """`model`: its canonical name, "" for what is not about one."""
        self._slot = node.begin(model)
        self._exchange = exchange
        self.record = exchange.begin_attempt(node.name)

    def succeed(self) -> None:
        """The answer is complete."""
        if self._end("ok"):
            self._slot.node.succeeded(self._slot.model)

    def record_failure(self, error: BaseException) -> None:
        """It ended with an error, which may be somebody else's fault."""
        state, slug = (error.state, error.slug) if isinstance(error, GatewayError) else ("aborted", "")
        if self._end(state, slug) and isinstance(error, UpstreamError):
            self._slot.node.failed(self._slot.model, error)

    def abort(self) -> None:
        """Its answer is not needed any more."""
        self._end("aborted")

    def end(self) -> None:
        """The exchange is over, and was about this attempt alone if the attempt has no outcome yet."""
        exchange, node = self._exchange, self._slot.node
        if not self._end(exchange.state, exchange.error):
            return
        if exchange.state == "ok":
            node.succeeded(self._slot.model)
        elif exchange.state in FAILED_STATES and exchange.status not in BUSY:
            node.record_model_failure(self._slot.model)

    def _end(self, state: str, error: str = "") -> bool:
        """Gives the slot back; false if the attempt has ended before."""
        if not self._slot.release():
            return False
        self.record.state, self.record.error = state, error
        return True


class TrackedEvents:
    """The events of one answer, whose end is that of its attempt."""

    def __init__(self, events: EventStream, attempt: RunningAttempt) -> None:
        self._events = events
        self._attempt = attempt

    def __iter__(self) -> Iterator[Sequence[Event]]:
        try:
            yield from self._events
        except GatewayError as error:
            self._attempt.record_failure(error)
            raise
        self._attempt.succeed()

    def close(self) -> None:
        """Stops what is still running; a second call does nothing."""
        self._events.close()
        self._attempt.abort()


class Attempts:
    """The attempts for one answer."""

    def __init__(self, fleet: Fleet, route: Route, exchange: Exchange) -> None:
        self._balancer = fleet.balancer
        self._route = route
        self._exchange = exchange
        self._token = exchange.principal.name if exchange.principal else ""
        self._tried: list[Node] = []
        self._retries = 0
        self._paused_s = 0.0
        self._went_elsewhere = False

    def open(self, call: Call, ask: Callable[[Node, str], T]) -> T:
        """What `ask` returns for a node and its own name of the model. That attempt ends with the exchange, which has
        no other one. Raises what the last attempt raised."""
        return self._open(call, ask)[0]

    def open_events(self, call: Call, ask: Callable[[Node, str], EventStream]) -> EventStream:
        """The events of one answer, of which the exchange may have several: the attempt ends with them."""
        return TrackedEvents(*self._open(call, ask))

    def _open(self, call: Call, ask: Callable[[Node, str], T]) -> tuple[T, RunningAttempt]:
        self._balancer.count_request()
        failed: RunningAttempt | None = None
        while True:
            node, upstream_model = self._balancer.pick(self._route, self._token, self._tried)
            if failed is not None:
                failed.record.is_repeated = True
            attempt = RunningAttempt(node, self._route.bare, self._exchange)
            try:
                opened = ask(node, upstream_model)
            except BaseException as error:  # whatever it was, also when the worker is being stopped
                attempt.record_failure(error)
                if not isinstance(error, UpstreamError):
                    raise
                self._again(error, node, call)
                failed = attempt
            else:
                self._exchange.on_finish(attempt.end)
                if self._retries:
                    self._exchange.attempts += (f"{node.name}: ok",)
                return opened, attempt

    def _again(self, error: UpstreamError, node: Node, call: Call) -> None:
        """Waits until it can be tried again; raises `error` when it can't."""
        self._tried.append(node)
        pause_s = self._pause_s(error, node)
        is_last = pause_s is None or call.ended or time.monotonic() + pause_s >= call.ends_at
        if self._retries or not is_last:
            reason = error.status if isinstance(error, UpstreamRefused) else error.slug
            self._exchange.attempts += (f"{node.name}: {reason}",)
        if is_last:
            if isinstance(error, UpstreamConnect) and error.retry_after_s is None:
                error.args = (self._route.lost,)
                error.retry_after_s = max(1, ceil(node.connection.retry_after_s()))
            raise error
        if isinstance(error, RefusedReply):
            error.reply.close()
        self._retries += 1
        if pause_s:
            self._paused_s += pause_s
            self._tried.clear()
            call.pause(pause_s)

    def _pause_s(self, error: UpstreamError, node: Node) -> float | None:
        """Seconds until the next attempt: none before another node is asked; None: there is no next one."""
        if self._retries >= MOST_RETRIES or not _is_unanswered(error):
            return None
        if self._route.has_other(self._tried):
            is_sent_again = isinstance(error, UpstreamConnect) or self._may_go_elsewhere(error)
            return 0.0 if is_sent_again else None
        backoff_s = FIRST_PAUSE_S * float(2**self._retries) * random.uniform(0.5, 1.5)
        if isinstance(error, UpstreamConnect):
            # What hangs would cost the caller its connect limit each time.
            return backoff_s if node.allows() and error.took_s < QUICK_S else None
        return self._busy_pause_s(error, node, backoff_s)

    def _busy_pause_s(self, error: UpstreamError, node: Node, backoff_s: float) -> float | None:
        """A provider says when it has room again; a box's queue is not made shorter by asking again."""
        if error.status not in BUSY or node.is_ollama_node:
            return None
        pause_s = max(backoff_s, float(error.retry_after_s or 0))
        is_decent = self._paused_s + pause_s <= LONGEST_PAUSE_S
        return pause_s if is_decent and self._balancer.spend_retry() else None

    def _may_go_elsewhere(self, error: UpstreamError) -> bool:
        """What a node failed with goes to one other node; what it refused for being busy, to any."""
        if error.status not in BUSY:
            if self._went_elsewhere:
                return False
            self._went_elsewhere = True
        return self._balancer.spend_retry()


def _is_unanswered(error: UpstreamError) -> bool:
    """Whether nothing was executed, by what is known, so that another attempt does nothing twice."""
    if isinstance(error, UpstreamRefused):
        return not error.final and (error.status in BUSY or error.status in FAILED)
    # An answer that can't be used, such as a page of a proxy in front of it.
    return isinstance(error, UpstreamConnect) or type(error) is UpstreamError


def forwarded(node: Node, outgoing: UpstreamRequest, call: Call) -> Reply:
    """The reply of a node to bytes of its own dialect; raises RefusedReply where another attempt may do better."""
    reply = node.upstream.forward(outgoing, call)
    if reply.status in BUSY or reply.status in FAILED:
        raise RefusedReply(reply, retry_after_s(reply.headers))
    return reply


def open_there(node: Node, exchange: Exchange, ask: Callable[[], T]) -> T:
    """What `ask` returns, from this node and with one attempt."""
    attempt = RunningAttempt(node, "", exchange)
    try:
        opened = ask()
    except BaseException as error:  # whatever it was, also when the worker is being stopped
        attempt.record_failure(error)
        raise
    exchange.on_finish(attempt.end)
    return opened
