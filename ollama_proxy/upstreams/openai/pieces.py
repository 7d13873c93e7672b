"""What arrives in pieces: tool calls, and thinking inside the text of a model. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Content, Event, Json, Logprobs, Thinking, ToolCall
from ollama_proxy.upstreams.ollama.codec import can_be_written, new_call_id

UNREADABLE = "The model server sent an invalid tool call."


OPEN, CLOSE = "<think>", "</think>"

#: After so many blanks no thinking begins.
MOST_BLANKS = 4096


@dataclass(slots=True, eq=False)
class _Parts:
    """The pieces of one call so far."""

    id: str = ""
    name: str = ""
    #: Its arguments if they came as an object.
    given: Mapping[str, Json] | None = None
    #: The pieces of their JSON so far, and its length: a call may come in thousands of pieces.
    pieces: list[str] = field(default_factory=list)
    chars: int = 0

    def add(self, call_id: str, name: str, arguments: Json) -> None:
        """Adds the next piece: the first id and name are kept, and arguments are appended."""
        self.id = self.id or call_id
        self.name = self.name or name
        if isinstance(arguments, dict):
            self.given = arguments
        elif isinstance(arguments, str) and self.given is None:
            # Some send all of the arguments once more after their pieces.
            if 0 < self.chars <= len(arguments):
                known = "".join(self.pieces)
                if arguments.startswith(known) and _is_json(known):
                    self.pieces, self.chars = [], 0
            self.pieces.append(arguments)
            self.chars += len(arguments)

    @property
    def is_whole(self) -> bool:
        """Whether nothing can be missing."""
        return bool(self.name) and (self.given is not None or _is_json("".join(self.pieces)))

    def load_arguments(self) -> Mapping[str, Json]:
        """All of the arguments. They always are an object: official clients
        fail on anything else."""
        if self.given is not None:
            return self.given
        text = "".join(self.pieces)
        if not text.strip():
            return {}
        try:
            arguments = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise UpstreamError(
                UNREADABLE, detail=f"arguments of {len(text)} characters that are not JSON"
            ) from None
        if isinstance(arguments, dict):
            return arguments
        return {} if arguments is None else {"value": arguments}


@dataclass(slots=True)
class ToolCallParts:
    """Assembles the calls of one answer. Providers differ in what each piece has: an index, an id,
    a name once or again and again, arguments as text or as an object."""

    _calls: list[_Parts] = field(default_factory=list)
    _by_index: dict[int, _Parts] = field(default_factory=dict)
    _by_id: dict[str, _Parts] = field(default_factory=dict)
    _given: set[str] = field(default_factory=set)

    def add(self, delta: Mapping[str, Json]) -> None:
        """Adds one piece: an item of `tool_calls`."""
        function = delta.get("function") or {}
        index = delta["index"] if isinstance(delta.get("index"), int) else None
        call_id, name = (
            value if isinstance(value, str) else ""
            for value in (delta.get("id"), function.get("name"))
        )
        call = self._find(index, call_id, name)
        if call is None:
            call = _Parts()
            self._calls.append(call)
            if index is not None:
                self._by_index[index] = call
        call.add(call_id, name, function.get("arguments"))
        if call.id:
            self._by_id.setdefault(call.id, call)

    def _find(self, index: int | None, call_id: str, name: str) -> _Parts | None:
        """The call that a piece belongs to; None: it starts a new one."""
        if known := self._by_id.get(call_id):
            return known
        if call := self._by_index.get(-1 if index is None else index):
            # An id that changes from piece to piece is one call; another one with a name of
            # its own is another call.
            return None if call_id and call.id and name else call
        return (
            None if call_id or not self._calls else self._last(name, is_numbered=index is not None)
        )

    def _last(self, name: str, *, is_numbered: bool) -> _Parts | None:
        """The last call, if a piece without an id belongs to it."""
        last = self._calls[-1]
        if is_numbered:
            return None if name else last
        is_another = name and (last.is_whole or (last.name and last.name != name))
        return None if is_another else last

    def take(self, *, limited: bool = False) -> list[ToolCall]:
        """The calls, once all of their pieces are there; raises UpstreamError for one that
        can't be decoded. `limited`: the answer has reached its limit, and a call that was
        cut by it is left out."""
        calls, self._calls, self._by_index, self._by_id = self._calls, [], {}, {}
        made = []
        for call in calls:
            if limited and not call.is_whole:
                continue
            arguments = call.load_arguments()
            if not call.name or not can_be_written(arguments):
                raise UpstreamError(UNREADABLE, detail="a tool call without a name, or too deep")
            call_id = call.id if call.id and call.id not in self._given else new_call_id()
            self._given.add(call_id)
            made.append(ToolCall(call_id, call.name, arguments))
        return made


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


@dataclass(slots=True)
class InlineThinking:
    """Splits the text of one answer, piece by piece, into thinking between two tags and the rest.
    Only a tag at its beginning is one: later it is text."""

    #: The tag that comes next; None: the rest is text.
    _tag: str | None = OPEN
    #: Text that may be the beginning of it.
    _held: str = ""
    #: Whether to drop blanks: those after a tag belong to neither side.
    _trims: bool = False

    def events(self, text: str, logprobs: Logprobs = ()) -> list[Event]:
        """The events of a piece, as far as they are certain."""
        if self._tag is None and not self._trims:
            return [Content(text, logprobs)]
        self._held += text
        if self._tag == OPEN:
            begin = self._held.lstrip()
            if begin.startswith(OPEN):
                self._tag, self._held, self._trims = CLOSE, begin.removeprefix(OPEN), True
            elif OPEN.startswith(begin) and len(self._held) < MOST_BLANKS:
                return []  # the text so far does not show how it begins
            else:
                self._tag = None
        events: list[Event] = []
        if self._tag == CLOSE:
            events += self._take_thinking(logprobs)
        if self._tag is None:
            rest = self._held.lstrip() if self._trims else self._held
            self._held, self._trims = "", self._trims and not rest
            if rest:
                events.append(Content(rest, logprobs))
        return events

    def _take_thinking(self, logprobs: Logprobs) -> list[Event]:
        held = self._held.lstrip("\n") if self._trims else self._held
        thought, tag, rest = held.partition(CLOSE)
        if tag:
            self._tag, self._held, self._trims = None, rest, True
        else:
            # As much of it as can't be the beginning of the tag.
            kept = next((n for n in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:n])), 0)
            self._held = thought[len(thought) - kept :]
            thought = thought[: len(thought) - kept]
            self._trims = self._trims and not thought
        return [Thinking(thought, logprobs)] if thought else []

    def end(self) -> list[Event]:
        """The text that was held back."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Thinking(held)] if self._tag == CLOSE else [Content(held)]
