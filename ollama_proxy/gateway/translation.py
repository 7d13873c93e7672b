"""Chats and completions that go through the hub: prepared for the node that answers, rendered for the client."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Generic

from flask import Response

from ollama_proxy.errors import BodyTooLarge
from ollama_proxy.gateway.chat_images import fetch_images
from ollama_proxy.gateway.event_filters import Ask, Asked, opened
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.fanout import FanOut, spread
from ollama_proxy.gateway.prepare import Prepare
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.gateway.responses import single_response, stream_response
from ollama_proxy.gateway.retries import Attempts
from ollama_proxy.gateway.snapshot import Snapshot
from ollama_proxy.hub import ChatRequest, Event
from ollama_proxy.upstreams import Call, EventStream, Node, Upstream

#: Opens an event stream: an empty batch for each heartbeat until it is open.
Opening = Generator[Sequence[Event], None, EventStream]


class OpeningEvents:
    """An event stream that is opened when it is iterated; the client gets heartbeats while that takes time."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._events: EventStream | None = None

    def __iter__(self) -> Iterator[Sequence[Event]]:
        # Not by `yield from` alone: once it is open, no frame of its own runs for every batch.
        return chain.from_iterable(self._parts())

    def _parts(self) -> Iterator[Iterable[Sequence[Event]]]:
        yield self._heartbeats()
        yield self._events or ()

    def _heartbeats(self) -> Iterator[Sequence[Event]]:
        self._events = yield from self._opening

    def close(self) -> None:
        """See EventStream."""
        self._opening.close()
        if self._events is not None:
            self._events.close()


class TranslatedCall(Generic[Asked]):
    """One chat or completion, which may ask for several answers."""

    def __init__(
        self,
        exchange: Exchange,
        snapshot: Snapshot,
        asked: Asked,
        prepare: Prepare[Asked],
        way: Callable[[Upstream], Ask[Asked]],
    ) -> None:
        """`way`: the method of an upstream that answers such a request."""
        self._exchange = exchange
        self._snapshot = snapshot
        self._asked: Asked = asked
        self._prepare: Prepare[Asked] = prepare
        self._way: Callable[[Upstream], Ask[Asked]] = way
        self._resolved = snapshot.resolve_prompt(exchange, asked.model)
        self._heartbeat_s = snapshot.settings.stream.heartbeat_s if asked.stream else None

    def respond(self, renderer: Renderer) -> Response:
        """The response to the client, streamed or single."""
        exchange, stream = self._exchange, self._asked.stream
        events = OpeningEvents(self._open())
        exchange.on_finish(events.close)
        exchange.stream = stream
        return stream_response(exchange, events, renderer) if stream else single_response(exchange, events, renderer)

    def _open(self) -> Opening:
        """Opens what takes time first; raises BodyTooLarge if the answers, each of which takes a copy of the request,
        would take too much memory."""
        exchange, asked, snapshot = self._exchange, self._asked, self._snapshot
        if isinstance(asked, ChatRequest):
            asked = yield from fetch_images(asked, snapshot.images, exchange, self._heartbeat_s)
        requests = spread(asked)
        if len(requests) == 1:
            return self._open_answer(requests[0], exchange.call)
        if len(requests) * len(exchange.body) > snapshot.settings.server.max_body:
            raise BodyTooLarge(f"{len(requests)} answers are too many for a request of this size; request fewer.")
        openers = [partial(self._open_answer, one) for one in requests]
        return FanOut(openers, exchange.call, self._heartbeat_s)

    def _open_answer(self, asked: Asked, call: Call) -> EventStream:
        """The events of one answer, from the node that is best for it."""
        exchange, snapshot, resolved = self._exchange, self._snapshot, self._resolved

        def start(node: Node, upstream_model: str) -> EventStream:
            """Those of one node."""
            model = snapshot.bind_to_node(exchange, call, resolved, node, upstream_model, asked.timeout_ms)
            prepared = self._prepare(asked, model, node.upstream, exchange)
            return opened(self._way(node.upstream), prepared, self._heartbeat_s, call)

        return Attempts(snapshot.fleet, resolved.route, exchange).open_events(call, start)
