"""Removes the events that a request does not want: thinking, or all calls of tools but the first. Checks answers that
have to be JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from ollama_proxy.hub import Approximated, ChatRequest, Content, Done, Event, GenerateRequest, Thinking, ToolCall
from ollama_proxy.upstreams import MAX_ANSWER_BYTES, EventStream


def filter_events(events: EventStream, asked: ChatRequest | GenerateRequest, heartbeat_s: float | None) -> EventStream:
    """Returns the events of one answer as the request wants them: the same stream if there is nothing to do."""
    if isinstance(asked, ChatRequest) and asked.format:
        events = JsonCheckedEvents(events)
    one_call = isinstance(asked, ChatRequest) and asked.parallel_tool_calls is False
    without_thinking = bool(asked.exclude_reasoning)
    if not (without_thinking or one_call):
        return events
    return FilteredEvents(events, without_thinking, one_call, heartbeat_s)


@dataclass(slots=True, eq=False)
class FilteredEvents:
    """The wanted events of another stream."""

    _events: EventStream
    _without_thinking: bool
    _one_call: bool
    _heartbeat_s: float | None

    def __iter__(self) -> Iterator[Sequence[Event]]:
        sent_at, has_call = time.monotonic(), False
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
            is_due = self._heartbeat_s is not None and time.monotonic() - sent_at >= self._heartbeat_s
            if kept or not batch or is_due:
                sent_at = time.monotonic()
                yield kept

    def close(self) -> None:
        """Closes the other stream."""
        self._events.close()


@dataclass(slots=True, eq=False)
class JsonCheckedEvents:
    """The events of an answer that has to be JSON, unless it is a call. If it is not, the last batch reports it. An
    answer that a limit has cut is reported as such already."""

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
