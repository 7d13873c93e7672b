"""The events of a response's stream: their numbers, and the items that are still being said.

Every item is opened, filled and closed by events of its own, in the order in which official clients put it together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from ollama_proxy.dialects.logprobs import render_logprobs
from ollama_proxy.dialects.responses.output_items import (
    IN_PROGRESS,
    function_call,
    message,
    new_id,
    reasoning,
    text_part,
)
from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Json, Logprobs, ToolCall

#: The last event says everything again, so all of it is held until then: at most about a million tokens, in bytes.
MOST_HELD = 64 * 1024 * 1024

#: What a piece of text takes beside its letters, and what the log probabilities of one token take, in bytes.
_PIECE_BYTES, _LOGPROBS_BYTES = 64, 1000


@dataclass(slots=True, eq=False)
class Events:
    """Draws events and numbers them, from 0 and without a gap."""

    #: The number of the next event.
    next: int = 0
    _held: int = 0

    def hold(self, text: str, logprobs: Logprobs = ()) -> None:
        """A piece is held until the last event. Raises UpstreamError when that has become too much."""
        self._held += len(text) + _PIECE_BYTES + _LOGPROBS_BYTES * len(logprobs)
        if self._held > MOST_HELD:
            raise UpstreamError("The model server's answer is too large.", detail=f"answer over {MOST_HELD} bytes")

    def draw(self, kind: str, **fields: Json) -> bytes:
        """One event; `kind` without `response.` in front."""
        document = {"type": f"response.{kind}", **fields, "sequence_number": self.next}
        self.next += 1
        return b"event: response.%b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(document))


class OpenItem:
    """An item that is all text, of which there may be more to come."""

    #: What its id begins with, and what the events of its text and of its only part begin with.
    _prefix: str
    _text_events: str
    _part_events: str
    #: The field that holds the part; the part before its first text; its place in the item, as events tell it.
    _parts: str
    _empty_part: Mapping[str, Json]
    _part_index: Mapping[str, Json]
    #: Fields of the events of its text, besides the text, with their values in most deltas.
    _extra: Mapping[str, Json]

    def __init__(self, events: Events, index: int) -> None:
        self._events, self._index, self._id = events, index, new_id(self._prefix)
        self._texts: list[str] = []
        self._logprobs: list[Mapping[str, Json]] = []
        self._place: dict[str, Json] = {"item_id": self._id, "output_index": index, **self._part_index}
        # A delta without what differs from one to the next.
        kind = f"response.{self._text_events}.delta"
        head = orjson.dumps({"type": kind, **self._place})[:-1]
        self._head = b'event: %b\ndata: %b,"delta":' % (kind.encode(), head)
        self._tail = _more(self._extra)

    def open(self) -> bytes:
        """The events before the first text."""
        item = {**self.item(IN_PROGRESS), self._parts: []}
        return self._events.draw("output_item.added", output_index=self._index, item=item) + self._events.draw(
            f"{self._part_events}.added", **self._place, part=self._empty_part
        )

    def add(self, text: str, logprobs: Logprobs = ()) -> bytes:
        """The event for more of it; raises UpstreamError when there is too much of it."""
        self._events.hold(text, logprobs)
        self._texts.append(text)
        tail = self._tail
        if logprobs:
            self._logprobs.extend(logprobs)
            tail = _more({"logprobs": render_logprobs(logprobs, spells=True)})
        number = self._events.next
        self._events.next = number + 1
        return self._head + orjson.dumps(text) + tail + b"%d}\n\n" % number

    def close(self, status: str) -> tuple[bytes, dict[str, Json]]:
        """The events behind the last text, and the item."""
        draw, item = self._events.draw, self.item(status)
        [part] = item[self._parts]
        said = {name: part[name] for name in ("text", *self._extra)}
        frames = (
            draw(f"{self._text_events}.done", **self._place, **said)
            + draw(f"{self._part_events}.done", **self._place, part=part)
            + draw("output_item.done", output_index=self._index, item=item)
        )
        return frames, item

    def item(self, status: str) -> dict[str, Json]:
        """The item as far as it has come."""
        raise NotImplementedError


def _more(fields: Mapping[str, Json]) -> bytes:
    """The end of a delta, up to its number."""
    return b"," + orjson.dumps({**fields, "sequence_number": 0})[1:-2]


class OpenMessage(OpenItem):
    """What the model is saying."""

    _prefix, _text_events, _part_events = "msg", "output_text", "content_part"
    _parts, _empty_part, _part_index = "content", text_part(""), {"content_index": 0}
    _extra = {"logprobs": []}

    def item(self, status: str) -> dict[str, Json]:
        """The message as far as it has come."""
        return message(self._id, status, text_part("".join(self._texts), self._logprobs))


class OpenReasoning(OpenItem):
    """What the model is thinking."""

    _prefix, _text_events, _part_events = "rs", "reasoning_summary_text", "reasoning_summary_part"
    _parts, _empty_part, _part_index = "summary", {"type": "summary_text", "text": ""}, {"summary_index": 0}
    _extra = {}

    def __init__(self, events: Events, index: int, *, sealed: bool) -> None:
        super().__init__(events, index)
        self._sealed = sealed

    def item(self, status: str) -> dict[str, Json]:
        """The thinking as far as it has come, and, once it has ended, also in the form to be sent back."""
        sealed = self._sealed and status != IN_PROGRESS
        return reasoning(self._id, status, "".join(self._texts), sealed=sealed)


def draw_call(events: Events, index: int, call: ToolCall) -> tuple[bytes, dict[str, Json]]:
    """The events of a call, which comes whole, and its item; raises UpstreamError when there are too many."""
    item_id = new_id("fc")
    item = function_call(item_id, call)
    place = {"item_id": item_id, "output_index": index}
    arguments = item["arguments"]
    events.hold(arguments)
    frames = (
        events.draw("output_item.added", output_index=index, item=function_call(item_id, call, IN_PROGRESS))
        + events.draw("function_call_arguments.delta", **place, delta=arguments)
        + events.draw("function_call_arguments.done", **place, name=call.name, arguments=arguments)
        + events.draw("output_item.done", output_index=index, item=item)
    )
    return frames, item
