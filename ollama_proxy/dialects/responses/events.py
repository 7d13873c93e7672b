"""Render the events of a response's stream: their numbers, and the items that are still open.

Events open, fill and close every item, in the order in which official clients assemble it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from ollama_proxy.dialects.content_parts import render_logprobs
from ollama_proxy.dialects.responses.output_items import (
    IN_PROGRESS,
    ResponseShape,
    message,
    new_call_id,
    new_id,
    reasoning,
    render_call,
    text_part,
)
from ollama_proxy.dialects.responses.tools import CUSTOM, FUNCTION
from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Json, Logprobs, ToolCall

#: The last event repeats the whole answer, which is kept until then: about a million
#: tokens at most, in bytes.
MAX_HELD_BYTES = 64 * 1024 * 1024

#: The memory that a piece of text takes besides its characters, and the log probabilities
#: of one token, in bytes.
_PIECE_BYTES, _LOGPROBS_BYTES = 64, 1000


@dataclass(slots=True, eq=False)
class Events:
    """Renders events and numbers them, from 0 without gaps."""

    #: The number of the next event.
    next: int = 0
    _held: int = 0

    def hold(self, text: str, logprobs: Logprobs = ()) -> None:
        """Count a piece that is kept until the last event. Raises UpstreamError if all pieces
        take too much memory."""
        self._held += len(text) + _PIECE_BYTES + _LOGPROBS_BYTES * len(logprobs)
        if self._held > MAX_HELD_BYTES:
            raise UpstreamError(
                "The model server's answer is too large.",
                detail=f"answer over {MAX_HELD_BYTES} bytes",
            )

    def render(self, kind: str, **fields: Json) -> bytes:
        """Render one event; `kind` is its type without `response.`."""
        document = {"type": f"response.{kind}", **fields, "sequence_number": self.next}
        self.next += 1
        return b"event: response.%b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(document))


class OpenItem:
    """An item of text that is still being received."""

    #: The prefixes of its id, of the events of its text, and of those of its only part.
    _prefix: str
    _text_events: str
    _part_events: str
    #: The field with the part, the part before its first text, and its index in the
    #: item, as events have it.
    _parts: str
    _empty_part: Mapping[str, Json]
    _part_index: Mapping[str, Json]
    #: Further fields of the events of its text, with their values in most deltas.
    _extra: Mapping[str, Json]

    def __init__(self, events: Events, index: int) -> None:
        self._events, self._index, self._id = events, index, new_id(self._prefix)
        self._texts: list[str] = []
        self._logprobs: list[Mapping[str, Json]] = []
        self._place: dict[str, Json] = {
            "item_id": self._id,
            "output_index": index,
            **self._part_index,
        }
        # The constant part of a delta.
        kind = f"response.{self._text_events}.delta"
        head = orjson.dumps({"type": kind, **self._place})[:-1]
        self._head = b'event: %b\ndata: %b,"delta":' % (kind.encode(), head)
        self._tail = _delta_tail(self._extra)

    def open(self) -> bytes:
        """Return the events before the first text."""
        item = {**self.item(IN_PROGRESS), self._parts: []}
        return self._events.render(
            "output_item.added", output_index=self._index, item=item
        ) + self._events.render(f"{self._part_events}.added", **self._place, part=self._empty_part)

    def add(self, text: str, logprobs: Logprobs = ()) -> bytes:
        """Return the event for more text; raises UpstreamError if the whole answer is too large."""
        self._events.hold(text, logprobs)
        self._texts.append(text)
        tail = self._tail
        if logprobs:
            self._logprobs.extend(logprobs)
            tail = _delta_tail({"logprobs": render_logprobs(logprobs, spells=True)})
        number = self._events.next
        self._events.next = number + 1
        return self._head + orjson.dumps(text) + tail + b"%d}\n\n" % number

    def close(self, status: str) -> tuple[bytes, dict[str, Json]]:
        """Return the events after the last text, and the item."""
        render, item = self._events.render, self.item(status)
        [part] = item[self._parts]
        fields = {name: part[name] for name in ("text", *self._extra)}
        frames = (
            render(f"{self._text_events}.done", **self._place, **fields)
            + render(f"{self._part_events}.done", **self._place, part=part)
            + render("output_item.done", output_index=self._index, item=item)
        )
        return frames, item

    def item(self, status: str) -> dict[str, Json]:
        """Return the item with the text so far."""
        raise NotImplementedError


def _delta_tail(fields: Mapping[str, Json]) -> bytes:
    """Return the end of a delta, up to its number."""
    return b"," + orjson.dumps({**fields, "sequence_number": 0})[1:-2]


class OpenMessage(OpenItem):
    """A message that is still being received."""

    _prefix, _text_events, _part_events = "msg", "output_text", "content_part"
    _parts, _empty_part, _part_index = "content", text_part(""), {"content_index": 0}
    _extra = {"logprobs": []}

    def item(self, status: str) -> dict[str, Json]:
        """Return the message with the text so far."""
        return message(self._id, status, text_part("".join(self._texts), self._logprobs))


class OpenReasoning(OpenItem):
    """Thinking that is still being received. A summary, if the request asks for
    one, has the same text."""

    _prefix, _text_events, _part_events = "rs", "reasoning_text", "content_part"
    _parts, _empty_part, _part_index = (
        "content",
        {"type": "reasoning_text", "text": ""},
        {"content_index": 0},
    )
    _extra = {}

    def __init__(self, events: Events, index: int, shape: ResponseShape) -> None:
        super().__init__(events, index)
        self._shape = shape
        self._summary_place = {"item_id": self._id, "output_index": index, "summary_index": 0}

    def open(self) -> bytes:
        """See OpenItem.open."""
        return super().open() + self._render_summary(
            "reasoning_summary_part.added", part={"type": "summary_text", "text": ""}
        )

    def add(self, text: str, logprobs: Logprobs = ()) -> bytes:
        """See OpenItem.add."""
        return super().add(text, logprobs) + self._render_summary(
            "reasoning_summary_text.delta", delta=text
        )

    def close(self, status: str) -> tuple[bytes, dict[str, Json]]:
        """See OpenItem.close."""
        text = "".join(self._texts)
        frames = self._render_summary("reasoning_summary_text.done", text=text)
        frames += self._render_summary(
            "reasoning_summary_part.done", part={"type": "summary_text", "text": text}
        )
        more, item = super().close(status)
        return frames + more, item

    def item(self, status: str) -> dict[str, Json]:
        """Return the thinking so far, in the forms that the request asks for."""
        return reasoning(self._id, status, "".join(self._texts), self._shape)

    def _render_summary(self, kind: str, **fields: Json) -> bytes:
        """Render an event of the summary, b"" if there is none."""
        return (
            self._events.render(kind, **self._summary_place, **fields)
            if self._shape.summarized
            else b""
        )


def render_call_events(
    events: Events, index: int, call: ToolCall, shape: ResponseShape
) -> tuple[bytes, dict[str, Json]]:
    """Return all events of a call, and its item; raises UpstreamError if the
    whole answer is too large."""
    item_id, kind = new_call_id(call, shape), shape.form_of(call).kind
    item = render_call(item_id, call, shape)
    place = {"item_id": item_id, "output_index": index}
    frames = events.render(
        "output_item.added", output_index=index, item=render_call(item_id, call, shape, IN_PROGRESS)
    )
    if kind == FUNCTION:
        arguments = item["arguments"]
        events.hold(arguments)
        frames += events.render("function_call_arguments.delta", **place, delta=arguments)
        frames += events.render(
            "function_call_arguments.done", **place, name=item["name"], arguments=arguments
        )
    elif kind == CUSTOM:
        events.hold(item["input"])
        frames += events.render("custom_tool_call_input.delta", **place, delta=item["input"])
        frames += events.render("custom_tool_call_input.done", **place, input=item["input"])
    return frames + events.render("output_item.done", output_index=index, item=item), item
