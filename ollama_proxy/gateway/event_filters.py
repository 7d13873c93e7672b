"""Removes the events that a request does not want: thinking, or all calls of tools but the first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ollama_proxy.hub import ChatRequest, Event, GenerateRequest, Thinking, ToolCall
from ollama_proxy.upstreams import EventStream


def filter_events(events: EventStream, asked: ChatRequest | GenerateRequest, heartbeat_s: float | None) -> EventStream:
    """Returns the events of one answer as the request wants them: the same stream if nothing is to be removed."""
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
