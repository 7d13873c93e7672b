"""Chats and completions that go through the hub: completed, prepared for the node that
answers, and rendered for the client without the events that it does not want. Answers that
have to be JSON are checked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import orjson
from flask import Response

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import BodyTooLarge
from ollama_proxy.gateway.conversion.documents import read_documents
from ollama_proxy.gateway.conversion.images import convert_images
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.fanout import FanOut, spread
from ollama_proxy.gateway.images import ImageFetcher
from ollama_proxy.gateway.prepare import prepare_chat, prepare_completion
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.gateway.responses import single_response, stream_response
from ollama_proxy.gateway.snapshot import Snapshot
from ollama_proxy.hub import (
    Approximated,
    ChatRequest,
    Content,
    Done,
    Event,
    GenerateRequest,
    ImageUrl,
    Thinking,
    ToolCall,
)
from ollama_proxy.upstreams import MAX_ANSWER_BYTES, Call, EventStream, Node

#: Completes a request: yields an empty batch for each heartbeat that this takes.
Completing = Generator[Sequence[Event], None, ChatRequest]


@dataclass(slots=True, eq=False)
class LateEvents:
    """The events of a request that has to be completed first; the client gets
    heartbeats meanwhile."""

    _completing: Completing
    _open_events: Callable[[ChatRequest], EventStream]
    _events: EventStream | None = None

    def __iter__(self) -> Iterator[Sequence[Event]]:
        asked = yield from self._completing
        self._events = self._open_events(asked)
        yield from self._events

    def close(self) -> None:
        """Stops completing the request, or closes its events."""
        self._completing.close()
        if self._events is not None:
            self._events.close()


class TranslatedCall:
    """One chat or completion, which may ask for several answers."""

    def __init__(
        self, exchange: Exchange, snapshot: Snapshot, asked: ChatRequest | GenerateRequest
    ) -> None:
        self._exchange = exchange
        self._snapshot = snapshot
        self._asked = asked
        self._resolved = snapshot.resolve_prompt(exchange, asked.model)
        self._heartbeat_s = snapshot.settings.stream.heartbeat_s if asked.stream else None
        exchange.call.limit_by_caller(asked.timeout_ms)

    def respond(self, renderer: Renderer) -> Response:
        """Returns the response to the client, streamed or single."""
        exchange, asked = self._exchange, self._asked
        exchange.stream = asked.stream
        if isinstance(asked, ChatRequest) and any(
            [message.attachments for message in asked.messages]
        ):
            events: EventStream = LateEvents(self._complete(asked), self._open)
        else:
            events = self._open(asked)
        exchange.on_finish(events.close)
        make_response = stream_response if asked.stream else single_response
        return make_response(exchange, events, renderer)

    def _complete(self, asked: ChatRequest) -> Completing:
        """Returns the chat with all images inline, and in a form that the model's server can read;
        the chat itself if it is like that."""
        exchange, snapshot, resolved = self._exchange, self._snapshot, self._resolved
        asked = yield from fetch_images(asked, snapshot.images, exchange, self._heartbeat_s)
        asked = yield from convert_images(asked, resolved, exchange.call, self._heartbeat_s)
        limits = snapshot.settings.documents
        return (
            yield from read_documents(asked, resolved, limits, exchange.call, self._heartbeat_s)
        )

    def _open(self, asked: ChatRequest | GenerateRequest) -> EventStream:
        """Returns the events of all answers; raises BodyTooLarge if the answers, each of which
        takes a copy of the request, would take too much memory."""
        exchange = self._exchange
        requests = spread(asked)
        if len(requests) == 1:
            return self._open_answer(requests[0], exchange.call)
        if len(requests) * len(exchange.body) > self._snapshot.settings.server.max_body:
            raise BodyTooLarge(
                f"{len(requests)} answers are too many for a request of this size; request fewer."
            )
        if self._snapshot.sharing is not None:
            exchange.call.hold()  # the limits of each answer count from its slot on
        return FanOut(
            [partial(self._open_answer, one) for one in requests], exchange.call, self._heartbeat_s
        )

    def _open_answer(self, asked: ChatRequest | GenerateRequest, call: Call) -> EventStream:
        """Returns the events of one answer, from the best node for it."""
        exchange, snapshot, resolved = self._exchange, self._snapshot, self._resolved

        def ask(node: Node, upstream_model: str) -> EventStream:
            """Returns the events of one node."""
            upstream = node.upstream
            model = snapshot.bind_to_node(
                exchange, call, resolved, node, upstream_model, asked.timeout_ms
            )
            prepared: ChatRequest | GenerateRequest
            if isinstance(asked, ChatRequest):
                prepared = prepare_chat(asked, model, upstream, exchange)
                events = upstream.chat(prepared, call, heartbeat_s=self._heartbeat_s)
            else:
                prepared = prepare_completion(asked, model, upstream, exchange)
                events = upstream.generate(prepared, call, heartbeat_s=self._heartbeat_s)
            return filter_events(events, prepared, self._heartbeat_s, call.clock)

        return snapshot.attempts(exchange, resolved).open_events(call, ask, self._heartbeat_s)


def fetch_images(
    asked: ChatRequest, fetcher: ImageFetcher, exchange: Exchange, heartbeat_s: float | None
) -> Generator[Sequence[Event], None, ChatRequest]:
    """Returns the chat with every image inline, the chat itself if none has to be fetched; yields
    an empty batch for each `heartbeat_s` seconds that it takes."""
    wanted = [
        image
        for message in asked.messages
        for image in message.attachments
        if isinstance(image, ImageUrl)
    ]
    if not wanted:
        return asked
    images = yield from fetcher.fetch_all(wanted, exchange.call, exchange.caller, heartbeat_s)
    fetched = dict(zip(wanted, images, strict=True))
    messages = [
        replace(
            message,
            attachments=[
                fetched[each] if isinstance(each, ImageUrl) else each
                for each in message.attachments
            ],
        )
        if message.attachments
        else message
        for message in asked.messages
    ]
    return replace(asked, messages=messages)


def filter_events(
    events: EventStream,
    asked: ChatRequest | GenerateRequest,
    heartbeat_s: float | None,
    clock: Clock = SYSTEM_CLOCK,
) -> EventStream:
    """Returns the events of one answer as the request wants them: the same stream if
    there is nothing to do."""
    if isinstance(asked, ChatRequest) and asked.format:
        events = JsonCheckedEvents(events)
    one_call = isinstance(asked, ChatRequest) and asked.parallel_tool_calls is False
    without_thinking = bool(asked.exclude_reasoning)
    if not (without_thinking or one_call):
        return events
    return FilteredEvents(events, without_thinking, one_call, heartbeat_s, clock)


@dataclass(slots=True, eq=False)
class FilteredEvents:
    """The wanted events of another stream."""

    _events: EventStream
    _without_thinking: bool
    _one_call: bool
    _heartbeat_s: float | None
    _clock: Clock

    def __iter__(self) -> Iterator[Sequence[Event]]:
        sent_at, has_call = self._clock.monotonic(), False
        for batch in self._events:
            kept: list[Event] = []
            for event in batch:
                if isinstance(event, ToolCall):
                    is_wanted = not (self._one_call and has_call)
                    has_call = True
                else:
                    is_wanted = not (self._without_thinking and isinstance(event, Thinking))
                if is_wanted:
                    kept.append(event)
            # A batch of which nothing is left looks like silence to the client.
            is_due = (
                self._heartbeat_s is not None
                and self._clock.monotonic() - sent_at >= self._heartbeat_s
            )
            if kept or not batch or is_due:
                sent_at = self._clock.monotonic()
                yield kept

    def close(self) -> None:
        """Closes the other stream."""
        self._events.close()


@dataclass(slots=True, eq=False)
class JsonCheckedEvents:
    """The events of an answer that has to be JSON, unless it is a call. If it is not, the last
    batch reports it. An answer that a limit has cut is reported as such already."""

    _events: EventStream

    def __iter__(self) -> Iterator[Sequence[Event]]:
        texts, size, is_call = list[str](), 0, False
        for batch in self._events:
            for event in batch:
                if isinstance(event, Content) and size <= MAX_ANSWER_BYTES:
                    texts.append(event.text)
                    size += len(event.text)
                is_call = is_call or isinstance(event, ToolCall)
            end = batch[-1] if batch else None
            is_answer = isinstance(end, Done) and end.done_reason != "length" and not is_call
            is_wrong = is_answer and not is_json("".join(texts))
            yield [Approximated("response_format"), *batch] if is_wrong else batch

    def close(self) -> None:
        """Closes the other stream."""
        self._events.close()


def is_json(text: str) -> bool:
    """Whether a text is one JSON value."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
