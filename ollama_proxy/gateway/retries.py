"""Opens one answer on the best node, and retries there or on another node if nothing can
be executed twice by that.

Retries happen before the first byte only. A request that never reached a node is sent again. One
that was refused because the node is busy goes to another node, or waits as long as a provider asks;
one that the node failed with goes to one other node: both draw on the fleet's retry budget. A
request that was cut, or took too long, may still have been executed, and is not sent again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias, TypeVar

from ollama_proxy.coordination import Admission, Ticket
from ollama_proxy.errors import (
    GatewayError,
    ShuttingDown,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.gateway.accounting import charge, measure
from ollama_proxy.gateway.draining import Lifecycle
from ollama_proxy.gateway.exchange import FAILED_STATES, Exchange
from ollama_proxy.gateway.sharing import describe_wait, list_prefixes
from ollama_proxy.hub import Done, Event, Json
from ollama_proxy.policy import canonical
from ollama_proxy.upstreams import (
    BUSY,
    QUICK_S,
    Call,
    EventStream,
    Fleet,
    Headers,
    Node,
    Reply,
    Route,
    UpstreamRequest,
    retry_after_s,
)

T = TypeVar("T")

#: Further attempts, at most.
MOST_RETRIES = 3

#: The first pause before the same node is asked again, doubled for each further one, and the
#: limit for all pauses of a request, even if a provider asks for more: no longer than streams
#: are silent; in seconds.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 15.0

#: Statuses of a server that is busy or failed, or of a proxy in front of it.
RETRYABLE = BUSY | {500, 502, 504}


#: How long a request waits for a slot that may be granted at once, if its worker is
#: about to end, in seconds.
DRAINING_S = 0.5

#: Opens one answer, and returns it with its attempt; yields after each heartbeat
#: that it waits for a slot.
Opening: TypeAlias = Generator[tuple[()], None, tuple[T, "RunningAttempt"]]


class RefusedReply(UpstreamRefused):
    """A reply with an error status, which decides whether another attempt may do better. If not,
    the client gets the reply as it is."""

    def __init__(self, reply: Reply, status: int) -> None:
        """`status`: that of the reply, or 400 if its text blames the request."""
        super().__init__(status, "", retry_after_s=retry_after_s(reply.headers))
        self.reply = reply


class RereadReply:
    """Another reply, which can be read once more from its beginning."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        #: What was read the first time; None: it is over.
        self._read: list[bytes] | None = []
        self._again: Iterator[bytes] = iter(())

    @property
    def status(self) -> int:
        """The status of the other reply."""
        return self._reply.status

    @property
    def headers(self) -> Headers:
        """The headers of the other reply."""
        return self._reply.headers

    def wait_head(self, wait_s: float | None = None) -> bool:
        """Waits for the head of the other reply."""
        return self._reply.wait_head(wait_s)

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """See Reply.read_some."""
        if (again := next(self._again, None)) is not None:
            return again
        read = self._reply.read_some(wait_s)
        if read and self._read is not None:
            self._read.append(read)
        return read

    def rewind(self) -> None:
        """Begins again, once."""
        self._again, self._read = iter(self._read or ()), None

    def close(self) -> None:
        """Closes the other reply."""
        self._reply.close()


class RunningAttempt:
    """One attempt: its slot on the node and its outcome, which is recorded once, on the
    node and on the exchange."""

    def __init__(
        self, node: Node, model: str, exchange: Exchange, call: Call, ticket: Ticket | None = None
    ) -> None:
        """`model`: its canonical name, "" for a request that is not about one; `call`: with which
        the node is asked; `ticket`: of the slot that was granted for it."""
        self._slot = node.begin(model)
        self._exchange = exchange
        self._ticket = ticket
        self.record = exchange.begin_attempt(node.name)
        if exchange.trace is not None:
            self.record.span_id, call.trace_lines = exchange.trace.begin_attempt()
        #: What the server measured, by Ollama's names.
        self.metrics: Mapping[str, Json] = {}
        if exchange.is_accounted:
            #: A load belongs to the first one that needs it; those that begin
            #: meanwhile only wait for it.
            self._causes_load = (ticket is not None and ticket.loads) or not node.accounted[model]
            node.accounted[model] += 1

    def end(self, state: str, error: str = "") -> bool:
        """Releases the slot, and records the outcome and what the attempt has used; returns False
        if it has an outcome already."""
        if not self._slot.release():
            return False
        self.record.state, self.record.error = state, error
        if state == "ok":
            self._slot.node.succeeded(self._slot.model)
        if not self._exchange.is_accounted:
            return True
        node, model, began_at = self._slot.node, self._slot.model, self._slot.began_at
        self.record.began_s = began_at - self._exchange.call.started
        self.record.took_s = self._exchange.call.clock.monotonic() - began_at
        node.accounted[model] -= 1
        if not node.accounted[model]:
            del node.accounted[model]
        took = measure(self.metrics or self._exchange.metrics)
        # Work on models, and what no server got, take none.
        if model and self.record.error != UpstreamConnect.slug:
            took = charge(
                self.record, took, node.declared.gpu_hour_price, causes_load=self._causes_load
            )
        if self._ticket is not None:
            # Only a whole answer tells how long one takes.
            self._ticket.release(took if state == "ok" else None)
            if self._ticket.loads:
                node.has_loaded = True
        return True

    def __enter__(self) -> RunningAttempt:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Records an error, whatever it is, also if the worker is being stopped; it is not
        necessarily the node's."""
        if error is None:
            return
        state, slug = (
            (error.state, error.slug) if isinstance(error, GatewayError) else ("aborted", "")
        )
        if self.end(state, slug) and isinstance(error, UpstreamError):
            self._slot.node.failed(self._slot.model, error)

    def end_with_exchange(self) -> None:
        """The exchange is over; its outcome is that of this attempt unless the
        attempt has one already."""
        exchange = self._exchange
        is_failure = exchange.state in FAILED_STATES and exchange.status not in BUSY
        if self.end(exchange.state, exchange.error) and is_failure:
            self._slot.node.record_model_failure(self._slot.model)


@dataclass(slots=True, eq=False)
class TrackedEvents:
    """The events of one answer. Its attempt ends with them."""

    _events: EventStream
    _attempt: RunningAttempt

    def __iter__(self) -> Iterator[Sequence[Event]]:
        batch: Sequence[Event] = ()
        with self._attempt:
            for batch in self._events:
                yield batch
        if batch and isinstance(batch[-1], Done):
            self._attempt.metrics = batch[-1].metrics
        self._attempt.end("ok")

    def close(self) -> None:
        """Stops the answer if it is still running; a second call does nothing."""
        self._events.close()
        self._attempt.end("aborted")


class QueuedEvents:
    """The events of one answer whose request still waits for a slot; an empty batch for
    each heartbeat meanwhile."""

    def __init__(self, opening: Opening[EventStream]) -> None:
        self._opening = opening
        self._events: EventStream | None = None

    def __iter__(self) -> Iterator[Sequence[Event]]:
        yield ()  # it has waited for one heartbeat already
        self._events = TrackedEvents(*(yield from self._opening))
        yield from self._events

    def close(self) -> None:
        """Leaves the queue, or stops the answer; a second call does nothing."""
        self._opening.close()
        if self._events is not None:
            self._events.close()


class Attempts:
    """The attempts for one answer."""

    def __init__(
        self,
        fleet: Fleet,
        route: Route,
        exchange: Exchange,
        lifecycle: Lifecycle,
        admission: Admission | None = None,
    ) -> None:
        """`admission`: of an exchange that needs slots, or has limits."""
        self._balancer = fleet.balancer
        self._lifecycle = lifecycle
        self._admission = admission
        #: How long it has waited for slots, in seconds; None: it was not granted one yet.
        self._waited_s: float | None = None
        self._route = route
        self._exchange = exchange
        self._token = exchange.principal.name if exchange.principal else ""
        self._tried: list[Node] = []
        self._retries = 0
        self._paused_s = 0.0
        self._went_elsewhere = False

    def open(
        self, call: Call, ask: Callable[[Node, str], T], heartbeat_s: float | None = None
    ) -> Generator[tuple[()], None, T]:
        """Returns what `ask` returns for a node and that node's name of the model; yields after
        each heartbeat that the request waits for a slot. The attempt ends with the exchange, which
        has no other one. Raises what the last attempt raised."""
        opened, attempt = yield from self._open(call, ask, heartbeat_s)
        self._exchange.on_finish(attempt.end_with_exchange)
        return opened

    def open_events(
        self, call: Call, ask: Callable[[Node, str], EventStream], heartbeat_s: float | None = None
    ) -> EventStream:
        """Returns the events of one answer, of which the exchange may have several: the attempt
        ends with them. The caller closes them. Waits for a slot for one heartbeat at most; the
        events have the rest of the wait."""
        opening = self._open(call, ask, heartbeat_s)
        try:
            next(opening)
        except StopIteration as opened:
            return TrackedEvents(*opened.value)
        return QueuedEvents(opening)

    def _open(
        self, call: Call, ask: Callable[[Node, str], T], heartbeat_s: float | None
    ) -> Opening[T]:
        self._balancer.count_request()
        failed: RunningAttempt | None = None
        ticket: Ticket | None = None
        while True:
            if self._admission is None:
                node, upstream_model = self._balancer.pick(self._route, self._token, self._tried)
            else:
                node, upstream_model, ticket = yield from self._wait_turn(
                    self._admission, call, heartbeat_s
                )
            if failed is not None:
                failed.record.is_repeated = True
            attempt = RunningAttempt(node, self._route.bare, self._exchange, call, ticket)
            try:
                with attempt:
                    opened = ask(node, upstream_model)
            except UpstreamError as error:
                self._prepare_retry(error, node, call)
                failed = attempt
            else:
                if self._retries:
                    self._exchange.attempts += (f"{node.name}: ok",)
                return opened, attempt

    def _wait_turn(
        self, admission: Admission, call: Call, heartbeat_s: float | None
    ) -> Generator[tuple[()], None, tuple[Node, str, Ticket | None]]:
        """Returns the node whose slot was granted, its name of the model, and the slot; without a
        slot if the route has no bounds and the limits permit the request."""
        if not self._route.is_bounded:
            if not admission.is_admitted:
                ticket = admission.acquire((), call)
                yield from self._wait_for(ticket, [], call, heartbeat_s)
                ticket.release(None)
            return *self._balancer.pick(self._route, self._token, self._tried), None
        conversation = list_prefixes(self._exchange.data, self._route)
        while True:
            candidates = self._list_candidates()
            named = [
                (node.name, canonical(upstream_model))
                for node, upstream_model in candidates.values()
            ]
            ticket = admission.acquire(
                named, call, conversation=conversation, waited_s=self._waited_s
            )
            lost = [node for node, _ in candidates.values()]
            try:
                yield from self._wait_for(ticket, lost, call, heartbeat_s)
                node, upstream_model = candidates[ticket.box]
                if node.allows():
                    return node, upstream_model, ticket
                ticket.release(None)
                lost = [node]
            except UpstreamConnect:
                pass  # none of them can be used any more
            self._tried += lost
            if not self._route.has_other(self._tried):
                raise self._route.unusable()

    def _list_candidates(self) -> dict[str, tuple[Node, str]]:
        """Returns the nodes that may get the request now, by name, each with its name of the model;
        raises UpstreamConnect if there is none."""
        # One that is down is not waited for, even if asking it costs nothing.
        usable = [each for each in self._route.usable(self._tried) if each[0].allows()]
        if not usable:
            raise self._route.unusable()
        healthy = [each for each in usable if not each[0].is_failing(self._route.bare)]
        return {node.name: (node, upstream_model) for node, upstream_model in healthy or usable}

    def _wait_for(
        self, ticket: Ticket, nodes: list[Node], call: Call, heartbeat_s: float | None
    ) -> Generator[tuple[()]]:
        """Waits until a slot of these nodes is granted; the exchange says what for, and in
        the end for how long."""
        exchange, is_granted = self._exchange, False
        if ticket.granted_s is not None and not ticket.loads:  # at once: most requests don't wait
            exchange.progress, self._waited_s = "", self._waited_s or 0.0
            return
        exchange.waits[ticket] = nodes
        call.hold()
        try:
            while not (
                is_granted := ticket.wait(
                    DRAINING_S if self._lifecycle.is_draining else heartbeat_s
                )
            ):
                if self._lifecycle.is_draining:
                    raise ShuttingDown
                exchange.progress = describe_wait(ticket.position)
                yield ()
        finally:
            del exchange.waits[ticket]
            # Happens also if the client has left, and nobody asks for the next heartbeat.
            if not is_granted:
                ticket.release(None)
            call.resume(ticket.waited_s)
            self._waited_s = (self._waited_s or 0.0) + ticket.waited_s
            if ticket.position is not None:
                exchange.queued_s = max(exchange.queued_s or 0.0, self._waited_s)
                exchange.queue = (f"waited={exchange.queued_s:.1f}s",)
        exchange.progress = f"loading {exchange.model} on {ticket.box}" if ticket.loads else ""

    def _prepare_retry(self, error: UpstreamError, node: Node, call: Call) -> None:
        """Waits until the request can be tried again; raises `error` if it can't."""
        self._tried.append(node)
        pause_s = self._pause_s(error, node)
        is_last = pause_s is None or call.ended or call.clock.monotonic() + pause_s >= call.ends_at
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
        """Seconds until the next attempt: 0 if another node is asked; None if
        there is no next one."""
        if self._retries >= MOST_RETRIES or not is_safe_to_repeat(error):
            return None
        if not self._route.has_other(self._tried):
            return self._same_node_pause_s(error, node)
        if isinstance(error, UpstreamConnect):
            return 0.0
        # Whatever a node failed with may fail every node, so only one other node gets it.
        is_failure = error.status not in BUSY
        if is_failure and self._went_elsewhere:
            return None
        self._went_elsewhere |= is_failure
        return 0.0 if self._balancer.spend_retry() else None

    def _same_node_pause_s(self, error: UpstreamError, node: Node) -> float | None:
        """Seconds until the only node is asked again; None if it is not."""
        backoff_s = FIRST_PAUSE_S * float(2**self._retries) * random.uniform(0.5, 1.5)
        if isinstance(error, UpstreamConnect):
            # A connection that hangs would cost the caller its connect limit each time.
            return backoff_s if node.allows() and error.took_s < QUICK_S else None
        # A provider says when it has capacity again; the queue of an Ollama server gets no
        # shorter by asking again.
        if error.status not in BUSY or node.is_ollama_node:
            return None
        pause_s = max(backoff_s, float(error.retry_after_s or 0))
        is_bearable = self._paused_s + pause_s <= LONGEST_PAUSE_S
        return pause_s if is_bearable and self._balancer.spend_retry() else None


def wait_open(opening: Generator[tuple[()], None, T]) -> T:
    """Returns what it opens, however long its request waits for a slot."""
    while True:
        try:
            next(opening)
        except StopIteration as opened:
            answer: T = opened.value
            return answer


def is_safe_to_repeat(error: UpstreamError) -> bool:
    """Whether a request that ended with this error was not executed: it was
    refused, never received, or answered with something unusable, such as a page of
    a proxy in front of the server."""
    if isinstance(error, UpstreamRefused):
        return not error.final and error.status in RETRYABLE
    return isinstance(error, UpstreamConnect) or type(error) is UpstreamError


def forward_to(node: Node, outgoing: UpstreamRequest, call: Call) -> Reply:
    """Returns the reply of a node to bytes of its own dialect; raises RefusedReply for one that its
    server failed with, or was too busy for."""
    reply = node.upstream.forward(outgoing, call)
    if reply.status in BUSY:
        raise RefusedReply(reply, reply.status)
    if reply.status < 500:
        return reply
    failed = RereadReply(reply)
    status = reply.status
    with ExitStack() as opened:
        opened.callback(failed.close)  # if the call ends meanwhile
        # An answer that was cut is a failure like any other; whoever reads it
        # again learns of the cut.
        with suppress(UpstreamCut, UpstreamTimeout):
            refusal = node.upstream.decode_refusal(failed)
            status = refusal.status if isinstance(refusal, UpstreamRefused) else status
        opened.pop_all()
    failed.rewind()
    raise RefusedReply(failed, status)


def open_there(node: Node, exchange: Exchange, ask: Callable[[], T]) -> T:
    """Returns what `ask` returns, from this node and with one attempt."""
    with RunningAttempt(node, "", exchange, exchange.call) as attempt:
        opened = ask()
    exchange.on_finish(attempt.end_with_exchange)
    return opened
