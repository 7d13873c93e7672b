"""Render hub events as Anthropic's messages and stream events, and read
their text for the chat log.

Blocks have dense indexes and each is closed before the next opens; every event has its
`event:` line; a block of thinking ends with one signature: the helpers of the official
clients fail on anything else.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2s
from typing import Any

import orjson

from ollama_proxy.dialects.anthropic.errors import AnthropicErrors
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Answer, Content, Done, Event, Json, Model, Thinking, ToolCall
from ollama_proxy.telemetry import Transcript

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

#: The start of a block, the beginning of a delta, and the end of a block, each
#: with the block's index.
_BLOCK = (
    b"event: content_block_start\ndata: "
    b'{"type":"content_block_start","index":%d,"content_block":%b}\n\n'
)
_DELTA = (
    b"event: content_block_delta\ndata: "
    b'{"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
)
_BLOCK_END = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'

#: The signature of thinking, made from its digest of SIGNATURE_BYTES bytes. Clients send it
#: back; it is not checked.
SIGNATURE, SIGNATURE_BYTES = "gw1.%s", 8

_TEXT = b'{"type":"text","text":""}'
_THINKING = b'{"type":"thinking","thinking":"","signature":""}'


class MessageRenderer:
    """One message. `input_tokens`: the estimate at the beginning of a stream; with `show_thinking`
    False, blocks of thinking have a signature and no text; `names_tier`: the request has a
    `service_tier`, so the usage has one."""

    content_type = "text/event-stream"

    def __init__(
        self,
        model: str,
        *,
        input_tokens: int = 0,
        show_thinking: bool = True,
        names_tier: bool = False,
    ) -> None:
        self._head: dict[str, Json] = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._input_tokens = input_tokens
        self._tier: dict[str, Json] = {"service_tier": "standard"} if names_tier else {}
        self._show_thinking = show_thinking
        self._begun = self._called = False
        #: The digest of the thinking since the last signature.
        self._thinking = blake2s(digest_size=SIGNATURE_BYTES)
        #: The type of event in the open block, the block's index, and the beginning of its deltas.
        self._open: type[Event] | None = None
        self._index = -1
        self._delta = b""

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer."""
        [answer] = answers
        content: list[Json] = []
        if answer.thinking:
            thinking = answer.thinking if self._show_thinking else ""
            content.append(
                {"type": "thinking", "thinking": thinking, "signature": sign(answer.thinking)}
            )
        if answer.content:
            content.append({"type": "text", "text": answer.content})
        content += [_tool_use(call) | {"input": call.arguments} for call in answer.tool_calls]
        reason = stop_reason(answer.done, bool(answer.tool_calls))
        return orjson.dumps(self._message(content, reason, usage(answer.done)))

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Return the frames for a batch of events."""
        frames = self._begin()
        for event in events:
            match event:
                case Content(text) if text:
                    if self._open is not Content:
                        frames += self._switch(Content, _TEXT, b"text_delta", b"text")
                    frames.append(self._delta + orjson.dumps(text) + b"}}\n\n")
                case Thinking(text) if text:
                    if self._open is not Thinking:
                        frames += self._switch(Thinking, _THINKING, b"thinking_delta", b"thinking")
                    self._thinking.update(text.encode())
                    if self._show_thinking:
                        frames.append(self._delta + orjson.dumps(text) + b"}}\n\n")
                case ToolCall():
                    # One block for each call, with the arguments in one delta, or no
                    # delta if there are none.
                    self._called = True
                    block = orjson.dumps(_tool_use(event) | {"input": {}})
                    frames += self._switch(ToolCall, block, b"input_json_delta", b"partial_json")
                    if event.arguments:
                        frames.append(
                            self._delta
                            + orjson.dumps(orjson.dumps(event.arguments).decode())
                            + b"}}\n\n"
                        )
                    frames += self._close()
                case Done():
                    delta = {"stop_reason": stop_reason(event, self._called), "stop_sequence": None}
                    document = {"type": "message_delta", "delta": delta, "usage": usage(event)}
                    frames += [*self._close(), _event(b"message_delta", document), STOP]
        return b"".join(frames)

    def render_heartbeat(self, progress: str = "") -> bytes:
        """Return a ping. The first one follows the start of the message, which
        clients expect first."""
        return b"".join(self._begin()) or PING

    def render_failure(self, error: GatewayError) -> bytes:
        """Return the frames that end a failed stream."""
        return AnthropicErrors().render_error_frame(error)

    def _message(
        self, content: list[Json], reason: str | None, counts: dict[str, int]
    ) -> dict[str, Json]:
        return {
            **self._head,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": counts | self._tier,
        }

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        message = self._message([], None, usage(Done("", self._input_tokens)))
        return [_event(b"message_start", {"type": "message_start", "message": message}), PING]

    def _switch(self, kind: type[Event], block: bytes, delta: bytes, field: bytes) -> list[bytes]:
        """Close the open block, if there is one, and open one for this type of event."""
        frames = self._close()
        self._open = kind
        self._index += 1
        self._delta = _DELTA % (self._index, delta, field)
        return [*frames, _BLOCK % (self._index, block)]

    def _close(self) -> list[bytes]:
        """Close the open block, if there is one."""
        if self._open is None:
            return []
        frames = [_BLOCK_END % self._index]
        if self._open is Thinking:
            delta = _DELTA % (self._index, b"signature_delta", b"signature")
            frames.insert(
                0, delta + orjson.dumps(SIGNATURE % self._thinking.hexdigest()) + b"}}\n\n"
            )
            self._thinking = blake2s(digest_size=SIGNATURE_BYTES)
        self._open = None
        return frames


def sign(thinking: str) -> str:
    """Return the signature of a whole block of thinking."""
    return SIGNATURE % blake2s(thinking.encode(), digest_size=SIGNATURE_BYTES).hexdigest()


def _event(name: bytes, document: dict[str, Json]) -> bytes:
    return b"event: " + name + b"\ndata: " + orjson.dumps(document) + b"\n\n"


def _tool_use(call: ToolCall) -> dict[str, Json]:
    return {"type": "tool_use", "id": call.id, "name": call.name}


def stop_reason(done: Done, called: bool) -> str:
    """Return Anthropic's `stop_reason`; "max_tokens" has priority over a call, which
    the limit may have cut."""
    if done.done_reason == "length":
        return "max_tokens"
    return "tool_use" if called else "end_turn"


def usage(done: Done) -> dict[str, int]:
    """Return the tokens of the whole message; thinking is part of the output."""
    cached, cache_written = done.cached or 0, done.cache_written or 0
    return {
        "input_tokens": max(0, done.prompt_eval_count - cached - cache_written),
        "cache_creation_input_tokens": cache_written,
        "cache_read_input_tokens": cached,
        "output_tokens": done.eval_count,
    }


def render_models(models: Sequence[Model]) -> dict[str, Json]:
    """Render the list of models, always as one page."""
    ids = [model.name for model in models]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    data = [render_model(model) for model in models]
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}


def render_model(model: Model) -> dict[str, Json]:
    """Render one model."""
    created = datetime.fromtimestamp(model.modified_at, UTC).replace(tzinfo=None).isoformat() + "Z"
    row: dict[str, Json] = {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": created,
    }
    row["lifecycle"] = "active"
    if model.context_length:
        row["max_input_tokens"] = model.context_length
    if model.capabilities is None:
        return row
    # What it can do through this gateway, which reads PDF files and asks for JSON itself. All
    # keys are always there.
    able = model.capabilities
    chats, thinks = _supported("completion" in able), _supported("thinking" in able)
    row["capabilities"] = {
        **dict.fromkeys(
            ("batch", "citations", "code_execution", "context_management"), _supported(False)
        ),
        "effort": thinks | dict.fromkeys(("low", "medium", "high", "xhigh", "max"), thinks),
        "image_input": _supported("vision" in able),
        "pdf_input": chats,
        "server_tools": _supported(False)
        | dict.fromkeys(("web_search", "code_execution"), _supported(False)),
        "structured_outputs": chats,
        "thinking": thinks
        | {
            "types": dict.fromkeys(("adaptive", "enabled"), thinks)
            | {"between_tools": _supported(False), "disabled": _supported(True)}
        },
    }
    return row


def _supported(value: bool) -> dict[str, Json]:
    return {"supported": value}


def read_transcript(document: dict[str, Any], transcript: Transcript) -> None:
    """Read a whole message, or an event of one."""
    match document.get("type"):
        case "message":
            for number, block in enumerate(document["content"]):
                _read_block(number, block, transcript)
            transcript.finish(document.get("stop_reason"))
        case "content_block_start":
            _read_block(document["index"], document["content_block"], transcript)
        case "content_block_delta":
            delta = document["delta"]
            transcript.think(delta.get("thinking"))
            transcript.text(delta.get("text"))
            if "partial_json" in delta:
                transcript.call(document["index"], arguments=delta["partial_json"])
        case "message_delta":
            transcript.finish(document["delta"].get("stop_reason"))


def _read_block(number: int, block: dict[str, Any], transcript: Transcript) -> None:
    if block["type"] == "tool_use":
        transcript.call(number, name=block["name"], arguments=block.get("input"))
    transcript.think(block.get("thinking"))
    transcript.text(block.get("text"))
