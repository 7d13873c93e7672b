"""Render hub events as Ollama's lines and answers, and read their text for the chat log.

Clients of Ollama parse every line: there are no heartbeats and no blank lines, and a stream ends
with `done` or an error. Durations are integers in nanoseconds, and unknown metrics are omitted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import hypot
from typing import Any

import orjson

from ollama_proxy.dialects.content_parts import render_logprobs
from ollama_proxy.dialects.native.errors import NativeErrors
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import (
    Answer,
    Content,
    Done,
    EmbedAnswer,
    Event,
    Json,
    Logprobs,
    Thinking,
    ToolCall,
)
from ollama_proxy.telemetry import Transcript

#: Ollama's content types of single answers and of streams.
SINGLE, NDJSON = "application/json; charset=utf-8", "application/x-ndjson"

#: The time to load a model if it is unknown, in nanoseconds: the model is loaded already.
LOAD_NS = 1_000_000


def stamp() -> str:
    """Return the current time in the format of RFC 3339."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class _NativeRenderer:
    """The common part of chats and completions; see Renderer."""

    content_type = NDJSON
    #: The bytes of a line around its text, after the head.
    _around: tuple[bytes, bytes]
    #: The first fields of the message, if the text is in one, and the field of the text.
    _role: Mapping[str, Json]
    _field: str

    def __init__(
        self, model: str, started: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`started`: when the request arrived, in seconds of the same clock."""
        self._model = model
        self._prefix = b'{"model":%b,"created_at":"' % orjson.dumps(model)
        self._started = started
        self._clock = clock
        self._first_at: float | None = None
        #: Calls for one line, which is written when another event shows that there are no more.
        self._calls: list[ToolCall] = []
        self._drawn_calls = 0

    def _build_fields(
        self, content: str, thinking: str = "", calls: Sequence[Json] = ()
    ) -> dict[str, Json]:
        """Return the fields of a line with the content, the thinking and the calls."""
        fields: dict[str, Json] = {**self._role, self._field: content}
        if thinking:
            fields["thinking"] = thinking
        if calls:
            fields["tool_calls"] = calls
        return {"message": fields} if self._role else fields

    def render_heartbeat(self, progress: str = "") -> bytes:
        """Return nothing: every byte would be taken for a line of the answer."""
        return b""

    def render_failure(self, error: GatewayError) -> bytes:
        """Return the frames that end a failed stream."""
        return NativeErrors().render_error_frame(error)

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer."""
        answer = answers[0]
        fields = self._build_fields(
            answer.content, answer.thinking, self._number_calls(answer.tool_calls)
        )
        document = {"model": self._model, "created_at": stamp(), **fields, **self._end(answer.done)}
        return orjson.dumps(document | _logprobs(answer.logprobs))

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Return the frames for a batch of events."""
        if self._first_at is None and events:
            self._first_at = self._clock()
        head = self._prefix + stamp().encode() + b'",'
        lines: list[bytes] = []
        for event in events:
            match event:
                case ToolCall():
                    self._calls.append(event)
                    continue
                case Content(text, logprobs) if not (logprobs or self._calls):
                    # Nearly every line, so no document is built.
                    lines.append(self._around[0].join((head, orjson.dumps(text))) + self._around[1])
                    continue
                case Content(text, logprobs):
                    own = self._build_fields(text) | {"done": False} | _logprobs(logprobs)
                case Thinking(text, logprobs):
                    own = self._build_fields("", text) | {"done": False} | _logprobs(logprobs)
                case Done():
                    own = self._build_fields("") | self._end(event)
                case _:
                    continue
            if self._calls:
                # The line of the calls precedes that of the next event.
                calls, self._calls = self._number_calls(self._calls), []
                of_calls = self._build_fields("", calls=calls) | {"done": False}
                lines.append(head + orjson.dumps(of_calls)[1:] + b"\n")
            lines.append(head + orjson.dumps(own)[1:] + b"\n")
        return b"".join(lines)

    def _number_calls(self, calls: Sequence[ToolCall]) -> list[dict[str, Json]]:
        """Render calls as Ollama does: arguments are an object, and the index counts
        all calls of the answer."""
        first, self._drawn_calls = self._drawn_calls, self._drawn_calls + len(calls)
        return [
            {
                "id": call.id,
                "function": {"index": index, "name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(calls, first)
        ]

    def _end(self, done: Done) -> dict[str, Json]:
        reason = "length" if done.done_reason == "length" else "stop"
        # The prompt was read until the first event, then the answer was written. For a single
        # answer, only the total is known, which counts as writing.
        now, first = self._clock(), self._first_at or self._started
        total, read = _nanoseconds(now - self._started), _nanoseconds(first - self._started)
        load = min(LOAD_NS, read or total)
        metrics = {
            "total_duration": total,
            "load_duration": load,
            "prompt_eval_count": done.prompt_eval_count,
            "prompt_eval_duration": max(read - load, 0),
            "eval_count": done.eval_count,
            # Never 0: clients divide by it.
            "eval_duration": max(total - max(read, load), 1),
        }
        known = {name: value for name, value in metrics.items() if value}
        return {"done": True, "done_reason": reason, **known}


class ChatRenderer(_NativeRenderer):
    """The answer of /api/chat."""

    _around = (b'"message":{"role":"assistant","content":', b'},"done":false}\n')
    _role = {"role": "assistant"}
    _field = "content"


class GenerateRenderer(_NativeRenderer):
    """The answer of /api/generate. It has no `context`: that would need Ollama's own tokens."""

    _around = (b'"response":', b',"done":false}\n')
    _role = {}
    _field = "response"


def _nanoseconds(seconds: float) -> int:
    return max(int(seconds * 1e9), 0)


def _logprobs(logprobs: Logprobs) -> dict[str, Json]:
    rows = render_logprobs(logprobs, spells=True, omits_empty=True)
    return {"logprobs": rows} if rows else {}


def render_load(route: str, model: str, reason: str) -> bytes:
    """Render the answer to a request that only loads or unloads a model; see find_purpose. It has
    no metrics and is never streamed."""
    if route == "embed":
        return orjson.dumps({"model": model, "embeddings": []})
    if route == "embeddings":
        return orjson.dumps({"embedding": []})
    empty = (
        {"message": {"role": "assistant", "content": ""}} if route == "chat" else {"response": ""}
    )
    return orjson.dumps(
        {"model": model, "created_at": stamp(), **empty, "done": True, "done_reason": reason}
    )


def render_embed(
    answer: EmbedAnswer, model: str, took_s: float, dimensions: int | None = None
) -> bytes:
    """Render the answer of POST /api/embed: every vector has length 1, and at most
    `dimensions` numbers."""
    vectors = []
    for vector in (whole[:dimensions] for whole in answer.embeddings):
        length = hypot(*vector) or 1.0
        vectors.append([number / length for number in vector])
    total = max(_nanoseconds(took_s), 1)
    document: dict[str, Json] = {"model": model, "embeddings": vectors, "total_duration": total}
    document["load_duration"] = min(LOAD_NS, total)
    if answer.prompt_eval_count:
        document["prompt_eval_count"] = answer.prompt_eval_count
    return orjson.dumps(document)


def render_embeddings(answer: EmbedAnswer) -> bytes:
    """Render the answer of the older POST /api/embeddings: one vector, unchanged."""
    return orjson.dumps({"embedding": answer.embeddings[0] if answer.embeddings else []})


def read_transcript(document: dict[str, Any], transcript: Transcript) -> None:
    """Read one object of `/api/chat` or `/api/generate`."""
    message = document.get("message") or {}
    transcript.think(message.get("thinking") or document.get("thinking"))
    transcript.text(message.get("content") or document.get("response"))
    for call in message.get("tool_calls") or ():
        transcript.call(
            None, name=call["function"]["name"], arguments=call["function"].get("arguments")
        )
    transcript.finish(document.get("done_reason"))
