"""Answers of the Messages API to hub events: the events of a stream, or one message. Pure;
see answer_events.Reader.

Unknown types of events, blocks and deltas are ignored: Anthropic adds some now and then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from ollama_proxy.errors import UpstreamCut, UpstreamError
from ollama_proxy.hub import Content, Done, Event, Json, Thinking, ToolCall
from ollama_proxy.upstreams.anthropic.errors import decode_error_event
from ollama_proxy.upstreams.anthropic.messages import Thoughts
from ollama_proxy.upstreams.ollama.codec import check_text, count, decode_object, new_call_id
from ollama_proxy.wire import SseSplitter

#: Stop reasons that are a limit, of the answer or of the context; all others are an end.
_LIMITS = ("max_tokens", "model_context_window_exceeded")

#: Parts of the prompt: Anthropic does not count tokens written to its cache, or
#: read from it, as input.
_INPUT, _CACHE_WRITTEN, _CACHED = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)

#: Some servers end a stream as OpenAI does.
_OPENAI_END = b"[DONE]"


@dataclass(slots=True)
class Block:
    """The open block: its start, and the pieces since."""

    start: Mapping[str, Json]
    pieces: list[str] = field(default_factory=list)
    signature: str = ""


@dataclass(slots=True, repr=False)
class MessageReader:
    """One answer of `model`. Its thinking before a call is kept in `thoughts`; no error
    shows any of `secrets`."""

    _model: str
    _thoughts: Thoughts
    _secrets: Sequence[str] = ()
    _frames: SseSplitter = field(default_factory=SseSplitter)
    _block: Block = field(default_factory=lambda: Block({}))
    #: Signed thinking since the last call.
    _signed: list[Mapping[str, Json]] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)
    _usage: dict[str, int] = field(default_factory=dict)
    _reason: str = ""
    #: The counts come before the end of a message.
    grace_s: float | None = None

    def feed(self, data: bytes) -> tuple[list[Event], UpstreamError | None]:
        """See Reader."""
        events: list[Event] = []
        try:
            for frame in self._frames.feed(data):
                self._read(frame, events)
                if events and isinstance(events[-1], Done):
                    break  # nothing can follow
        except UpstreamError as failure:
            return events, failure
        return events, None

    def end(self) -> tuple[list[Event], UpstreamError | None]:
        """See Reader."""
        events: list[Event] = []
        try:
            for frame in self._frames.rest():
                self._read(frame, events)
        except UpstreamError as failure:
            return events, failure
        is_whole = bool(events) and isinstance(events[-1], Done)
        return events, None if is_whole else UpstreamCut(detail="stream ended without message_stop")

    def whole(self, body: bytes) -> list[Event]:
        """See Reader."""
        document = decode_object(body)
        if document.get("type") == "error":
            raise decode_error_event(document, self._model, self._secrets)
        events: list[Event] = []
        try:
            for block in document["content"]:
                self._block = Block(block)
                events += [*self._start_block(block), *self._end_block()]
            self._record(document.get("stop_reason"), document.get("usage"))
        except (AttributeError, KeyError, TypeError) as error:
            raise UpstreamError(detail=f"an answer of another shape: {error!r:.100}") from error
        if not self._reason:
            raise UpstreamCut(detail="single answer without a stop_reason")
        return [*events, self._done()]

    def _read(self, frame: bytes, events: list[Event]) -> None:
        """Adds the events of one frame; raises UpstreamError for a malformed one,
        and for an error in it."""
        if frame == _OPENAI_END:
            return
        document = decode_object(frame)
        try:
            match document.get("type"):
                case "content_block_delta":
                    self._add_piece(document["delta"], events)
                case "content_block_start":
                    self._block = Block(document["content_block"])
                    events += self._start_block(document["content_block"])
                case "content_block_stop":
                    events += self._end_block()
                case "message_start":
                    self._record(None, document["message"].get("usage"))
                case "message_delta":
                    self._record(document["delta"].get("stop_reason"), document.get("usage"))
                case "message_stop":
                    events.append(self._done())
                case "error":
                    raise decode_error_event(document, self._model, self._secrets)
        except (AttributeError, KeyError, TypeError) as error:
            raise UpstreamError(detail=f"an event of another shape: {error!r:.100}") from error

    def _add_piece(self, delta: Mapping[str, Json], events: list[Event]) -> None:
        match delta["type"]:
            case "text_delta":
                if delta["text"]:
                    events.append(Content(check_text(delta["text"])))
            case "thinking_delta":
                self._block.pieces.append(check_text(delta["thinking"]))
                if delta["thinking"]:
                    events.append(Thinking(delta["thinking"]))
            case "input_json_delta":
                self._block.pieces.append(check_text(delta["partial_json"]))
            case "signature_delta":
                self._block.signature += check_text(delta["signature"])

    def _start_block(self, block: Mapping[str, Json]) -> list[Event]:
        """The content at the start of a block: nothing in a stream of Anthropic's,
        everything in a single answer."""
        match block["type"]:
            case "text" if block.get("text"):
                return [Content(check_text(block["text"]))]
            case "thinking" if block.get("thinking"):
                return [Thinking(check_text(block["thinking"]))]
        return []

    def _end_block(self) -> list[Event]:
        block, self._block = self._block, Block({})
        match block.start.get("type"):
            case "tool_use":
                return [self._decode_call(block)]
            case "thinking":
                thinking = check_text(block.start.get("thinking") or "") + "".join(block.pieces)
                signature = check_text(block.start.get("signature") or "") + block.signature
                if signature:
                    self._signed.append(
                        {"type": "thinking", "thinking": thinking, "signature": signature}
                    )
            case "redacted_thinking":
                self._signed.append({"type": "redacted_thinking", "data": block.start["data"]})
        return []

    def _decode_call(self, block: Block) -> ToolCall:
        written = "".join(block.pieces)
        try:
            arguments = orjson.loads(written) if written else block.start.get("input") or {}
            # Answers have them three levels deep, and orjson reads four times as
            # many levels as it writes.
            orjson.dumps([[[arguments]]])
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            arguments = None
        if not isinstance(arguments, dict):
            raise UpstreamError("The model server sent an invalid tool call.")
        call_id = check_text(block.start.get("id") or "")
        if not call_id or call_id in self._ids:
            call_id = new_call_id()
        self._ids.add(call_id)
        self._thoughts.keep(call_id, self._signed)
        self._signed = []
        return ToolCall(call_id, check_text(block.start["name"]), arguments)

    def _record(self, reason: Json, usage: Json) -> None:
        """Records the stop reason and the counts, which are totals so far; a missing one
        leaves the last value."""
        self._reason = check_text(reason or "") or self._reason
        for name, value in (usage or {}).items():
            if value is not None:
                self._usage[name] = max(count(value), self._usage.get(name, 0))

    def _done(self) -> Done:
        usage = self._usage
        return Done(
            "length" if self._reason in _LIMITS else "stop",
            sum(usage.get(name, 0) for name in (_INPUT, _CACHE_WRITTEN, _CACHED)),
            usage.get("output_tokens", 0),
            cached=usage.get(_CACHED),
            cache_written=usage.get(_CACHE_WRITTEN),
        )
