"""Hub events to Ollama's lines and answers.

Clients of Ollama parse every line: there are no heartbeats and no blank lines, and a stream ends with `done` or an
error. Durations are whole nanoseconds, and metrics that nobody knows are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import hypot

import orjson

from ollama_proxy.dialects.logprobs import render_logprobs
from ollama_proxy.dialects.native.errors import NativeErrors
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Answer, Content, Done, EmbedAnswer, Event, Json, Logprobs, Thinking, ToolCall

#: What Ollama says of every answer that is one object, and of streams.
SINGLE, NDJSON = "application/json; charset=utf-8", "application/x-ndjson"

#: What loading the model counts for where nothing tells: it is there already. In nanoseconds.
LOAD_NS = 1_000_000


def stamp() -> str:
    """The time now, by RFC 3339."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class _NativeRenderer:
    """What chats and completions have in common; see Renderer."""

    content_type = NDJSON
    #: What stands around a text on its line, behind the head.
    _around: tuple[bytes, bytes]
    #: What a message begins with, if the text is a part of one; and the field of the text.
    _role: Mapping[str, Json]
    _field: str

    def __init__(self, model: str, started: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`started`: when the request arrived, by the same clock, in seconds."""
        self._model = model
        self._prefix = b'{"model":%b,"created_at":"' % orjson.dumps(model)
        self._started = started
        self._clock = clock
        self._first_at: float | None = None
        #: Calls that are to stand on one line: what comes next tells whether there are more.
        self._calls: list[ToolCall] = []
        self._drawn_calls = 0

    def _said(self, content: str, thinking: str = "", calls: Sequence[Json] = ()) -> dict[str, Json]:
        """The part of a line that holds what the model said."""
        said: dict[str, Json] = {**self._role, self._field: content}
        if thinking:
            said["thinking"] = thinking
        if calls:
            said["tool_calls"] = calls
        return {"message": said} if self._role else said

    def render_heartbeat(self) -> bytes:
        """Return nothing: every byte would be taken for a line of the answer."""
        return b""

    def render_failure(self, error: GatewayError) -> bytes:
        """Return the frames that end a failed stream."""
        return NativeErrors().render_error_frame(error)

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer."""
        answer = answers[0]
        said = self._said(answer.content, answer.thinking, self._numbered(answer.tool_calls))
        document = {"model": self._model, "created_at": stamp(), **said, **self._end(answer.done)}
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
                    # Nearly every line, so it is not built as a document.
                    lines.append(self._around[0].join((head, orjson.dumps(text))) + self._around[1])
                    continue
                case Content(text, logprobs):
                    own = self._said(text) | {"done": False} | _logprobs(logprobs)
                case Thinking(text, logprobs):
                    own = self._said("", text) | {"done": False} | _logprobs(logprobs)
                case Done():
                    own = self._said("") | self._end(event)
                case _:
                    continue
            if self._calls:
                # The line of the calls stands before that of what follows them.
                calls, self._calls = self._numbered(self._calls), []
                lines.append(_line(head, self._said("", calls=calls) | {"done": False}))
            lines.append(_line(head, own))
        return b"".join(lines)

    def _numbered(self, calls: Sequence[ToolCall]) -> list[dict[str, Json]]:
        """Calls as Ollama writes them: arguments are an object, and the index counts through the whole answer."""
        first, self._drawn_calls = self._drawn_calls, self._drawn_calls + len(calls)
        return [
            {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
            for index, call in enumerate(calls, first)
        ]

    def _end(self, done: Done) -> dict[str, Json]:
        reason = "length" if done.done_reason == "length" else "stop"
        # Up to the first event the prompt was read, from there on the answer was written. Of a single answer only the
        # whole is known: it counts as writing.
        now, first = self._clock(), self._first_at or self._started
        total, read = _nanoseconds(now - self._started), _nanoseconds(first - self._started)
        load = min(LOAD_NS, read or total)
        metrics = {
            "total_duration": total,
            "load_duration": load,
            "prompt_eval_count": done.prompt_eval_count,
            "prompt_eval_duration": max(read - load, 0),
            "eval_count": done.eval_count,
            # Clients divide by it.
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
    """The answer of /api/generate. It has no `context`: only Ollama's own tokens could be continued."""

    _around = (b'"response":', b',"done":false}\n')
    _role = {}
    _field = "response"


def _line(head: bytes, rest: Mapping[str, Json]) -> bytes:
    return head + orjson.dumps(rest)[1:] + b"\n"


def _nanoseconds(seconds: float) -> int:
    return max(int(seconds * 1e9), 0)


def _logprobs(logprobs: Logprobs) -> dict[str, Json]:
    rows = render_logprobs(logprobs, spells=True, omits_empty=True)
    return {"logprobs": rows} if rows else {}


def render_load(route: str, model: str, reason: str) -> bytes:
    """The answer to an order to load a model, or to let go of it; see load_order. Without metrics, also where a stream
    was asked for."""
    if route == "embed":
        return orjson.dumps({"model": model, "embeddings": []})
    if route == "embeddings":
        return orjson.dumps({"embedding": []})
    said = {"message": {"role": "assistant", "content": ""}} if route == "chat" else {"response": ""}
    return orjson.dumps({"model": model, "created_at": stamp(), **said, "done": True, "done_reason": reason})


def render_embed(answer: EmbedAnswer, model: str, took_s: float, dimensions: int | None = None) -> bytes:
    """The answer of POST /api/embed: every vector has length 1, and at most so many `dimensions`."""
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
    """The answer of the older POST /api/embeddings: one vector as it came."""
    return orjson.dumps({"embedding": answer.embeddings[0] if answer.embeddings else []})
