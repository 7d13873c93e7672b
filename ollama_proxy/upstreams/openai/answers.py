"""Answers of OpenAI's API to hub events: chunks of a stream, or the one object. Pure: bytes and dicts in, values out.

Providers differ in where they put things, and all of the places that are known are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat

from ollama_proxy.errors import UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.hub import Content, Done, Event, Json, Logprobs, ToolCall
from ollama_proxy.upstreams.answer_events import GRACE_S, Read
from ollama_proxy.upstreams.ollama.codec import decode_object, sound_logprobs, text_events
from ollama_proxy.upstreams.openai.errors import error_in
from ollama_proxy.upstreams.openai.inline_thinking import InlineThinking
from ollama_proxy.upstreams.openai.tools import ToolCallParts
from ollama_proxy.wire import MAX_LINE_BYTES, SseSplitter, read_usage, without_comments

#: Words for an answer that has met its limit.
_LENGTH = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})

#: What an answer without an error of its own failed with.
_FAILED: Mapping[str, Callable[[], UpstreamError]] = {
    "insufficient_system_resource": partial(UpstreamRefused, 503, "The model server ran out of resources."),
    "error": partial(UpstreamRefused, 502, "The model server failed to answer."),
    "abort": partial(UpstreamCut, detail="finish_reason abort"),
}

#: What most pieces of an answer are made of.
_PLAIN = frozenset({"role", "content", "reasoning", "reasoning_content", "refusal"})

#: Told of the calls of an answer, what was thought before them, and how the provider seals that.
Heard = Callable[[Sequence[ToolCall], str, Sequence[Json]], None]


class ChunkDecoder:
    """Chunks of one answer to events. Its calls come when it has finished, and `Done` when nothing can follow."""

    def __init__(
        self,
        *,
        inline_thinking: bool = False,
        heard: Heard | None = None,
        error_of: Callable[[Mapping[str, Json]], UpstreamError] = error_in,
        filtered: Callable[[], None] | None = None,
    ) -> None:
        """`heard`: see Heard; `error_of`: what an error in an answer amounts to; `filtered`: told when the provider has
        cut an answer because of what it says."""
        self._inline = InlineThinking() if inline_thinking else None
        self._heard = heard
        self._error_of = error_of
        self._filtered = filtered
        self._calls = ToolCallParts()
        self._usage: Mapping[str, Json] = {}
        self._thoughts: list[str] = []
        self._details: list[Json] = []
        #: Why it has finished, in the provider's word; "": it has not.
        self.finish_reason = ""

    def decode(self, chunk: Mapping[str, Json]) -> list[Event]:
        """The events of one chunk, or of a whole answer; raises UpstreamError for an error in it, and for a chunk of
        another shape."""
        try:
            if chunk.get("usage"):
                self._usage = chunk["usage"]
            choices = chunk.get("choices")
            if not choices or chunk.get("error"):
                self._check(chunk)
                return []
            choice = choices[0]
            if choice.get("error"):
                raise self._error_of(choice)
            delta = choice.get("delta")
            if delta is None:
                delta = choice.get("message") or {"content": choice.get("text")}
            logprobs = choice.get("logprobs")
            events = self._said(delta, decode_logprobs(logprobs) if logprobs else ())
            reason = choice.get("finish_reason")
            if reason:
                events += self._finish(reason, choice, chunk)
            return events
        except (AttributeError, TypeError, KeyError, IndexError) as error:
            raise UpstreamError(detail=f"an answer of another shape: {error}") from error

    def _check(self, chunk: Mapping[str, Json]) -> None:
        """Raises what a chunk without an answer says went wrong."""
        if chunk.get("error") or chunk.get("object") == "error" or ("code" in chunk and chunk.get("message")):
            raise self._error_of(chunk)

    def _said(self, delta: Mapping[str, Json], logprobs: Logprobs) -> list[Event]:
        thinking, content = _texts(delta)
        if self._heard is not None or not _PLAIN.issuperset(delta):
            self._note(delta, thinking)
        if self._inline is not None and content:
            return [*text_events(thinking, "", ()), *self._inline.events(content, logprobs)]
        return text_events(thinking, content, logprobs) if thinking or not content else [Content(content, logprobs)]

    def _note(self, delta: Mapping[str, Json], thinking: str) -> None:
        for call in delta.get("tool_calls") or ():
            self._calls.add(call)
        if delta.get("function_call"):
            self._calls.add({"index": 0, "function": delta["function_call"]})
        if self._heard is not None:
            if thinking:
                self._thoughts.append(thinking)
            self._details += delta.get("reasoning_details") or ()

    def _finish(self, reason: Json, choice: Mapping[str, Json], chunk: Mapping[str, Json]) -> list[Event]:
        word = str(reason).lower()
        if word == "null":
            return []
        if word in _FAILED:
            raise _FAILED[word]()
        self.finish_reason = word
        if word == "content_filter" and self._filtered is not None:
            self._filtered()
        # Two places that are hardly used.
        self._usage = self._usage or choice.get("usage") or (chunk.get("x_groq") or {}).get("usage") or {}
        return self._called()

    def _called(self) -> list[Event]:
        events: list[Event] = self._inline.end() if self._inline else []
        calls = self._calls.take(limited=self.finish_reason in _LENGTH)
        if calls and self._heard is not None:
            self._heard(calls, "".join(self._thoughts), self._details)
        return [*events, *calls]

    def end(self) -> list[Event]:
        """What is left when nothing can follow, and `Done`; raises UpstreamError for a call that can't be read."""
        reason = "length" if self.finish_reason in _LENGTH else "stop"
        usage = read_usage(self._usage)
        done = Done(
            reason,
            usage.prompt or 0,
            usage.completion or 0,
            cached=usage.cached,
            cache_written=usage.cache_written,
        )
        return [*self._called(), done]


def _texts(delta: Mapping[str, Json]) -> tuple[str, str]:
    """Thinking and text of one piece."""
    thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
    content = delta.get("content") or delta.get("refusal") or ""
    if not isinstance(content, str):
        return _of_parts(content)
    # Some have an object beside the text; the text is all that matters.
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
    """Log probabilities as Ollama lists them, from either form: that of chats has the same entries."""
    if "tokens" not in logprobs:
        return sound_logprobs(logprobs.get("content") or logprobs.get("refusal") or ())
    # Completions have four lists side by side.
    entries = []
    chances = logprobs.get("token_logprobs") or repeat(None)
    tops = logprobs.get("top_logprobs") or repeat(None)
    for token, chance, top in zip(logprobs["tokens"] or (), chances, tops, strict=False):
        entry: dict[str, Json] = {"token": token, "logprob": _chance(chance)}
        if top:
            entry["top_logprobs"] = [{"token": other, "logprob": _chance(value)} for other, value in top.items()]
        entries.append(entry)
    return sound_logprobs(entries)


def _chance(value: Json) -> float:
    """The first token of all has none."""
    return value if isinstance(value, int | float) and math.isfinite(value) else 0.0


class OpenAIReader:
    """Bytes of an answer of OpenAI's API to events; see Reader.

    A stream that turns out to be one object, and one object that turns out to be a stream, are read as what they are.
    """

    def __init__(self, decoder: ChunkDecoder) -> None:
        self._decoder = decoder
        self._events = SseSplitter()
        #: What came before it was known what it is; afterwards that of an object.
        self._head = bytearray()
        self._is_stream: bool | None = None
        self._ended = False

    @property
    def grace_s(self) -> float | None:
        """See Reader: the usage comes behind the end, if it comes."""
        return GRACE_S if self._decoder.finish_reason and not self._ended else None

    def feed(self, data: bytes) -> Read:
        """See Reader."""
        if self._is_stream:
            return self._decoded(self._events.feed, data)
        self._head += data
        if self._is_stream is None:
            begin = without_comments(self._head)
            if begin:
                self._is_stream = begin[:1] not in b"{[<"
            else:
                # There may be many of them: all that matters is whether the last one goes on.
                self._head[:] = b":" if b":" in self._head and self._head[-1:] not in b"\r\n" else b""
        data = b""
        if self._is_stream:
            data = bytes(self._head)
            self._head.clear()
        return self._decoded(self._events.feed, data)

    def _decoded(self, split: Callable[[bytes], list[bytes]], data: bytes) -> Read:
        events: list[Event] = []
        try:
            if len(self._head) > MAX_LINE_BYTES:
                raise UpstreamError("The model server's answer is too large.")
            for item in split(data):
                if item[:6] == b"[DONE]":
                    self._ended = True
                    return [*events, *self._decoder.end()], None
                if item:
                    events += self._decoder.decode(decode_object(item))
        except UpstreamError as failure:
            return events, failure
        return events, None

    def end(self) -> Read:
        """See Reader: an answer that has not said why it ends was cut."""
        events: list[Event] = []
        try:
            if without_comments(self._head):
                return self.whole(bytes(self._head)), None
            events, failure = self._decoded(lambda _: self._events.rest(), b"")
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
