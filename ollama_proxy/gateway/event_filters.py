"""Events as a request wants them: without thinking, or with only the first call of a tool."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from ollama_proxy.hub import ChatRequest, Event, GenerateRequest, Thinking, ToolCall
from ollama_proxy.upstreams import Call, EventStream

Asked = TypeVar("Asked", ChatRequest, GenerateRequest)
Asking = TypeVar("Asking", ChatRequest, GenerateRequest, contravariant=True)


class Ask(Protocol[Asking]):
    """One of an upstream's ways to be asked: `chat` or `generate`."""

    def __call__(self, request: Asking, call: Call, *, heartbeat_s: float | None = None) -> EventStream: ...


def opened(ask: Ask[Asked], asked: Asked, heartbeat_s: float | None, call: Call) -> EventStream:
    """The events of one answer as the request wants them; raises what `ask` raises."""
    events = ask(asked, call, heartbeat_s=heartbeat_s)
    one_call = isinstance(asked, ChatRequest) and asked.parallel_tool_calls is False
    if not (asked.exclude_reasoning or one_call):
        return events
    return ShapedEvents(
        events, without_thinking=bool(asked.exclude_reasoning), one_call=one_call, heartbeat_s=heartbeat_s
    )


class ShapedEvents:
    """The events of another stream, less what was not wanted; see EventStream."""

    def __init__(
        self, events: EventStream, *, without_thinking: bool, one_call: bool, heartbeat_s: float | None
    ) -> None:
        self._events = events
        self._without_thinking = without_thinking
        self._one_call = one_call
        self._heartbeat_s = heartbeat_s
        self._called = False

    def __iter__(self) -> Iterator[Sequence[Event]]:
        said_at = time.monotonic()
        for batch in self._events:
            kept: list[Event] = []
            for event in batch:
                if isinstance(event, ToolCall):
                    is_first, self._called = not self._called, True
                    is_wanted = is_first or not self._one_call
                else:
                    is_wanted = not (self._without_thinking and isinstance(event, Thinking))
                if is_wanted:
                    kept.append(event)
            # A batch of which nothing is left is no silence, but a client that waits can't tell.
            is_due = self._heartbeat_s is not None and time.monotonic() - said_at >= self._heartbeat_s
            if kept or not batch or is_due:
                said_at = time.monotonic()
                yield kept

    def close(self) -> None:
        """See EventStream."""
        self._events.close()
