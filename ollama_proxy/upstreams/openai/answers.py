"""Answers of OpenAI's API as values of the hub: chunks of a stream, or the one object, as events;
and lists of models. Pure: bytes and dicts in, values out.

Providers differ in where they put things; every known place is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

from ollama_proxy.errors import UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Content, Done, Event, Json, Logprobs, Model, ToolCall
from ollama_proxy.upstreams.answer_events import GRACE_S, Read
from ollama_proxy.upstreams.ollama.codec import count, decode_object, sound_logprobs, text_events
from ollama_proxy.upstreams.openai.errors import decode_error
from ollama_proxy.upstreams.openai.messages import Thought
from ollama_proxy.upstreams.openai.pieces import InlineThinking, ToolCallParts
from ollama_proxy.wire import MAX_LINE_BYTES, SseSplitter, read_usage, without_comments

#: Finish reasons of an answer that has reached its limit.
_LENGTH = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})

#: Finish reasons of an answer that failed without an error object.
_FAILED: Mapping[str, Callable[[], UpstreamError]] = {
    "insufficient_system_resource": partial(
        UpstreamRefused, 503, "The model server ran out of resources."
    ),
    "error": partial(UpstreamRefused, 502, "The model server failed to answer."),
    "abort": partial(UpstreamCut, detail="finish_reason abort"),
}

#: Fields of most pieces of an answer.
_PLAIN = frozenset({"role", "content", "reasoning", "reasoning_content", "refusal"})

#: Names for the name of a model, and for its context in tokens.
_NAMES = ("id", "name", "model")
_CONTEXT = ("context_length", "max_model_len", "context_window", "max_context_length")

#: Receives the tool calls of an answer, and the thinking before them.
OnToolCalls = Callable[[Sequence[ToolCall], Thought], None]


class ChunkDecoder:
    """Chunks of one answer to events. Its tool calls follow its finish reason, and
    `Done` follows its counts."""

    def __init__(
        self,
        *,
        inline_thinking: bool = False,
        on_tool_calls: OnToolCalls | None = None,
        decode_error: Callable[[Mapping[str, Json]], UpstreamError] = decode_error,
        on_filtered: Callable[[], None] | None = None,
    ) -> None:
        """`decode_error`: makes the error for an error object in an answer; `on_filtered`: called
        when the provider has cut an answer because of its content."""
        self._inline = InlineThinking() if inline_thinking else None
        self._on_tool_calls = on_tool_calls
        self._decode_error = decode_error
        self._on_filtered = on_filtered
        self._calls = ToolCallParts()
        self._usage: Mapping[str, Json] = {}
        self._thoughts: list[str] = []
        self._details: list[Json] = []
        #: The provider's finish reason; "": it has not finished.
        self.finish_reason = ""

    def decode(self, chunk: Mapping[str, Json]) -> list[Event]:
        """The events of one chunk, or of a whole answer; raises UpstreamError for an error in it,
        and for a chunk of another shape."""
        try:
            if chunk.get("usage"):
                self._usage = chunk["usage"]
            choices = chunk.get("choices")
            if not choices or chunk.get("error"):
                self._check(chunk)
                return []
            choice = choices[0]
            if choice.get("error"):
                raise self._decode_error(choice)
            delta = choice.get("delta")
            if delta is None:
                delta = choice.get("message") or {"content": choice.get("text")}
            logprobs = choice.get("logprobs")
            events = self._decode_delta(delta, decode_logprobs(logprobs) if logprobs else ())
            reason = choice.get("finish_reason")
            if reason:
                events += self._finish(reason, choice, chunk)
            return events
        except (AttributeError, TypeError, KeyError, IndexError) as error:
            raise UpstreamError(detail=f"an answer of another shape: {error}") from error

    def _check(self, chunk: Mapping[str, Json]) -> None:
        """Raises the error of a chunk without an answer, if it has one."""
        if (
            chunk.get("error")
            or chunk.get("object") == "error"
            or ("code" in chunk and chunk.get("message"))
        ):
            raise self._decode_error(chunk)

    def _decode_delta(self, delta: Mapping[str, Json], logprobs: Logprobs) -> list[Event]:
        thinking, content = _texts(delta)
        if self._on_tool_calls is not None or not _PLAIN.issuperset(delta):
            self._collect_calls(delta, thinking)
        if self._inline is not None and content:
            return [*text_events(thinking, "", ()), *self._inline.events(content, logprobs)]
        return (
            text_events(thinking, content, logprobs)
            if thinking or not content
            else [Content(content, logprobs)]
        )

    def _collect_calls(self, delta: Mapping[str, Json], thinking: str) -> None:
        for call in delta.get("tool_calls") or ():
            self._calls.add(call)
        if delta.get("function_call"):
            self._calls.add({"index": 0, "function": delta["function_call"]})
        if self._on_tool_calls is not None:
            if thinking:
                self._thoughts.append(thinking)
            self._details += delta.get("reasoning_details") or ()

    def _finish(
        self, reason: Json, choice: Mapping[str, Json], chunk: Mapping[str, Json]
    ) -> list[Event]:
        word = str(reason).lower()
        if word == "null":
            return []
        if word in _FAILED:
            raise _FAILED[word]()
        self.finish_reason = word
        if word == "content_filter" and self._on_filtered is not None:
            self._on_filtered()
        # Two rare places.
        self._usage = (
            self._usage or choice.get("usage") or (chunk.get("x_groq") or {}).get("usage") or {}
        )
        return self._take_calls()

    def _take_calls(self) -> list[Event]:
        events: list[Event] = self._inline.end() if self._inline else []
        calls = self._calls.take(limited=self.finish_reason in _LENGTH)
        if calls and self._on_tool_calls is not None:
            self._on_tool_calls(calls, Thought("".join(self._thoughts), self._details))
        return [*events, *calls]

    def end(self) -> list[Event]:
        """The remaining events, and `Done`; raises UpstreamError for a call
        that can't be decoded."""
        reason = "length" if self.finish_reason in _LENGTH else "stop"
        usage = read_usage(self._usage)
        done = Done(
            reason,
            usage.prompt or 0,
            usage.completion or 0,
            cached=usage.cached,
            cache_written=usage.cache_written,
        )
        return [*self._take_calls(), done]


def _texts(delta: Mapping[str, Json]) -> tuple[str, str]:
    """Thinking and text of one piece."""
    thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
    content = delta.get("content") or delta.get("refusal") or ""
    if not isinstance(content, str):
        return _of_parts(content)
    # Some have an object beside the text, which is ignored.
    return thinking if isinstance(thinking, str) else "", content


def _of_parts(content: Json) -> tuple[str, str]:
    """Thinking and text of a content that is a list of parts."""
    thinking: list[str] = []
    text: list[str] = []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif part.get("type") == "thinking":
            inner = part.get("thinking") or ""
            thinking.append(inner if isinstance(inner, str) else _of_parts(inner)[1])
        else:
            text.append(part.get("text") or part.get("refusal") or "")
    return "".join(thinking), "".join(text)


def decode_logprobs(logprobs: Mapping[str, Json]) -> Logprobs:
    """Log probabilities as Ollama lists them, from either form: that of chats
    has the same entries."""
    if "tokens" not in logprobs:
        entries = logprobs.get("content") or logprobs.get("refusal")
        return sound_logprobs(entries) if entries else ()
    # Completions have four lists side by side.
    entries = []
    chances = logprobs.get("token_logprobs") or repeat(None)
    tops = logprobs.get("top_logprobs") or repeat(None)
    for token, chance, top in zip(logprobs["tokens"] or (), chances, tops, strict=False):
        entry: dict[str, Json] = {"token": token, "logprob": _chance(chance)}
        if top:
            entry["top_logprobs"] = [
                {"token": other, "logprob": _chance(value)} for other, value in top.items()
            ]
        entries.append(entry)
    return sound_logprobs(entries)


def _chance(value: Json) -> float:
    """The probability of a token; the first one of all has none."""
    return value if isinstance(value, int | float) and math.isfinite(value) else 0.0


@dataclass(slots=True)
class OpenAIReader:
    """Bytes of an answer of OpenAI's API to events; see Reader.

    One object in place of a stream is decoded as an object, and a stream in place
    of one object as a stream.
    """

    _decoder: ChunkDecoder
    _events: SseSplitter = field(default_factory=SseSplitter)
    #: The bytes before it was known whether it is a stream; afterwards those of an object.
    _head: bytearray = field(default_factory=bytearray)
    _is_stream: bool | None = None
    _ended: bool = False
    #: Set by the finish reason: the usage may follow it.
    grace_s: float | None = None

    def feed(self, data: bytes) -> Read:
        """See Reader."""
        if self._is_stream:
            return self._decode(self._events.feed, data)
        self._head += data
        if self._is_stream is None:
            begin = without_comments(self._head)
            if begin:
                self._is_stream = begin[:1] not in b"{[<"
            else:
                # There may be many comments: keep only whether the last one is open.
                self._head[:] = (
                    b":" if b":" in self._head and self._head[-1:] not in b"\r\n" else b""
                )
        data = b""
        if self._is_stream:
            data = bytes(self._head)
            self._head.clear()
        return self._decode(self._events.feed, data)

    def _decode(self, split: Callable[[bytes], list[bytes]], data: bytes) -> Read:
        events: list[Event] = []
        try:
            if len(self._head) > MAX_LINE_BYTES:
                raise UpstreamError("The model server's answer is too large.")
            for item in split(data):
                if item[:6] == b"[DONE]":
                    self._ended, self.grace_s = True, None
                    return [*events, *self._decoder.end()], None
                if item:
                    events += self._decoder.decode(decode_object(item))
        except UpstreamError as failure:
            return events, failure
        if self._decoder.finish_reason:
            self.grace_s = GRACE_S
        return events, None

    def end(self) -> Read:
        """See Reader: an answer without a finish reason was cut."""
        events: list[Event] = []
        try:
            if without_comments(self._head):
                return self.whole(bytes(self._head)), None
            events, failure = self._decode(lambda _: self._events.rest(), b"")
            if failure is not None or self._ended:
                return events, failure
            if not self._decoder.finish_reason:
                raise UpstreamCut(detail="stream ended without finish_reason")
            return [*events, *self._decoder.end()], None
        except UpstreamError as error:
            return events, error

    def whole(self, body: bytes) -> list[Event]:
        """See Reader."""
        begin = without_comments(body).strip()
        if begin[:1] in b"{":
            document = decode_object(begin)
            events = self._decoder.decode(document)
            if not document.get("choices"):
                raise UpstreamError(detail="an answer without choices")
            return [*events, *self._decoder.end()]
        if begin[:1] in b"<[":
            raise UpstreamError(detail=f"upstream sent {len(body)} bytes that are no answer")
        self._head.clear()
        self._is_stream = True
        events, failure = self.feed(body)
        if failure is None and not self._ended:
            more, failure = self.end()
            events += more
        if failure is not None:
            raise failure
        return events


def decode_models(document: Json, owner: str) -> list[Model]:
    """The models of a list, with or without an envelope; raises UpstreamError otherwise.
    `owner`: the upstream."""
    rows = document
    if isinstance(document, dict):
        rows = document.get("data") if document.get("data") is not None else document.get("models")
    if not isinstance(rows, list):
        raise UpstreamError(detail="the list of models is of another shape")
    models = []
    for row in rows:
        name = next(filter(None, map(row.get, _NAMES)), None) if isinstance(row, dict) else None
        if isinstance(name, str):
            made_at, capabilities = count(row.get("created")), _capabilities(row)
            contexts, meta = [count(row.get(name)) for name in _CONTEXT], row.get("meta")
            contexts.append(
                count(meta.get("n_ctx") or meta.get("n_ctx_train")) if isinstance(meta, dict) else 0
            )
            context = next(filter(None, contexts), None)
            embedding = count(row.get("embedding_length")) or None
            models.append(
                Model(name, made_at, owner, capabilities, context, embedding_length=embedding)
            )
    return models


def _capabilities(row: Mapping[str, Json]) -> frozenset[str] | None:
    """The capabilities in a row; None if it does not list enough."""
    if row.get("type") in ("embedding", "embeddings"):
        return frozenset({"embedding"})
    listed = row.get("capabilities")
    # Another gateway of this kind lists its models so.
    if isinstance(listed, list) and ("completion" in listed or "embedding" in listed):
        return frozenset(name for name in listed if isinstance(name, str))
    parameters, architecture = row.get("supported_parameters"), row.get("architecture")
    if not isinstance(parameters, list):
        return None
    inputs = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    inputs = inputs if isinstance(inputs, list) else []
    told = {
        "completion": True,
        "tools": "tools" in parameters,
        "thinking": "reasoning" in parameters or "include_reasoning" in parameters,
        "vision": "image" in inputs,
        "audio": "audio" in inputs,
    }
    return frozenset(name for name, can in told.items() if can)
