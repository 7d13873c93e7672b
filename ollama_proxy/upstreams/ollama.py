"""An Ollama server: hub requests to its native API, its answers to events. The demo speaks the same API in process."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from ollama_proxy.errors import GatewayError, PromptTooLong, UpstreamCut, UpstreamError
from ollama_proxy.hub import (
    ChatRequest,
    Done,
    EmbedAnswer,
    EmbedRequest,
    Event,
    GenerateRequest,
    Json,
    Model,
    TextRequest,
    Truncated,
)
from ollama_proxy.policy.names import canonical
from ollama_proxy.streaming import Call
from ollama_proxy.upstreams.base import Headers, Reply, Transport, UpstreamRequest
from ollama_proxy.upstreams.facts import Facts
from ollama_proxy.upstreams.ollama_codec import (
    ChatDecoder,
    Decoder,
    count,
    decode_events,
    decode_generate,
    decode_object,
    encode_chat,
    encode_embed,
    encode_generate,
    refused,
    refused_line,
    seconds_of,
)
from ollama_proxy.wire import LineSplitter, encode_request

#: Largest single answer that is held in memory to be translated.
MAX_ANSWER_BYTES = 64 * 1024 * 1024

#: Seconds to wait for the end of the body once the answer is complete, so that the connection can be kept.
DRAIN_S = 0.5

#: How long facts about its models are believed, in seconds: what one can do, and how it is loaded.
CAPABILITIES_KEPT_S, LOADED_KEPT_S = 300.0, 1.0

_SINGLE = (("Content-Type", "application/json"), ("Accept", "application/json"))
_STREAM = (("Content-Type", "application/json"), ("Accept", "application/x-ndjson"))


class OllamaUpstream:
    """One Ollama server behind a transport."""

    dialects = frozenset({"native"})

    def __init__(self, name: str, transport: Transport) -> None:
        self.name = name
        self._transport = transport
        self._capabilities = Facts[frozenset[str] | None](CAPABILITIES_KEPT_S)
        self._loaded = Facts[dict[str, int]](LOADED_KEPT_S)

    def forward(self, request: UpstreamRequest, call: Call) -> Reply:
        """See Upstream.forward."""
        return self._transport.open(request, call)

    def chat(self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None) -> OllamaEvents:
        """See Upstream.chat."""
        encode = partial(encode_chat, request)
        return self._events("/api/chat", request, encode, ChatDecoder(), call, heartbeat_s)

    def approximated(self, request: ChatRequest) -> tuple[str, ...]:
        """See Upstream.approximated."""
        return () if request.tool_choice in (None, "auto", "none") else ("tool_choice",)

    def generate(self, request: GenerateRequest, call: Call, *, heartbeat_s: float | None = None) -> OllamaEvents:
        """See Upstream.generate."""
        encode = partial(encode_generate, request)
        return self._events("/api/generate", request, encode, decode_generate, call, heartbeat_s)

    def _events(
        self,
        path: str,
        request: TextRequest,
        encode: Callable[..., Json],
        decode: Decoder,
        call: Call,
        heartbeat_s: float | None,
    ) -> OllamaEvents:
        headers = _STREAM if request.stream else _SINGLE

        def open_reply(*, cut: bool) -> Reply:
            """Asks; `cut`: what is too long may be cut."""
            outgoing = UpstreamRequest("POST", path, encode_request(encode(cut=cut)), headers=headers)
            return self._transport.open(outgoing, call, head_wait_s=heartbeat_s)

        # Refused first and then allowed is the only way to know that something was cut.
        again = partial(open_reply, cut=True) if request.truncate else None
        return OllamaEvents(open_reply(cut=False), decode, stream=request.stream, heartbeat_s=heartbeat_s, again=again)

    def embed(self, request: EmbedRequest, call: Call) -> EmbedAnswer:
        """See Upstream.embed."""
        try:
            return self._embed(request, call, cut=False)
        except PromptTooLong:
            if not request.truncate:
                raise
        return replace(self._embed(request, call, cut=True), truncated=True)

    def _embed(self, request: EmbedRequest, call: Call, *, cut: bool) -> EmbedAnswer:
        answer = self._ask("POST", "/api/embed", call, encode_request(encode_embed(request, cut=cut)))
        vectors = answer.get("embeddings")
        if not isinstance(vectors, list) or len(vectors) != len(request.input):
            raise UpstreamError(detail="embeddings are missing, or their number is not that of the inputs")
        if not all(_is_vector(vector) for vector in vectors):
            raise UpstreamError(detail="embeddings are no lists of numbers")
        return EmbedAnswer(vectors, count(answer.get("prompt_eval_count")))

    def models(self, call: Call) -> list[Model]:
        """See Upstream.models."""
        listed = self._ask("GET", "/api/tags", call).get("models") or []
        if not isinstance(listed, list) or not all(_is_model(row) for row in listed):
            raise UpstreamError(detail="the list of models is of another shape")
        return [Model(row["name"], seconds_of(row.get("modified_at")), "ollama") for row in listed]

    def capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        """See Upstream.capabilities."""
        return self._capabilities.get(model, call, partial(self._ask_capabilities, model))

    def _ask_capabilities(self, model: str, call: Call) -> frozenset[str] | None:
        shown = self._ask("POST", "/api/show", call, encode_request({"model": model}))
        listed = shown.get("capabilities")
        return frozenset(map(str, listed)) if isinstance(listed, list) else None

    def loaded_context(self, model: str, call: Call) -> int | None:
        """See Upstream.loaded_context."""
        return (self._loaded.get("ps", call, self._ask_loaded) or {}).get(canonical(model))

    def _ask_loaded(self, call: Call) -> dict[str, int]:
        rows = self._ask("GET", "/api/ps", call).get("models") or []
        if not isinstance(rows, list) or not all(_is_model(row) for row in rows):
            raise UpstreamError(detail="the list of loaded models is of another shape")
        contexts = {canonical(row["name"]): count(row.get("context_length")) for row in rows}
        return {name: length for name, length in contexts.items() if length}

    def version(self, call: Call) -> str:
        """See Upstream.version."""
        return str(self._ask("GET", "/api/version", call).get("version") or "")

    def _ask(self, method: str, path: str, call: Call, body: bytes = b"") -> dict[str, Json]:
        reply = self._transport.open(UpstreamRequest(method, path, body, headers=_SINGLE), call)
        with contextlib.closing(reply):
            data = read_all(reply)
            if reply.status != 200:
                raise refused(reply.status, data, retry_after_s(reply.headers))
            return decode_object(data)

    def counts(self) -> dict[str, int]:
        """See Transport.counts."""
        return self._transport.counts()

    def close(self) -> None:
        """See Upstream.close."""
        self._transport.close()


class OllamaEvents:
    """The events of one answer, streamed or single; see EventStream."""

    def __init__(
        self,
        reply: Reply,
        decode: Decoder,
        *,
        stream: bool,
        heartbeat_s: float | None,
        again: Callable[[], Reply] | None = None,
    ) -> None:
        """Raises UpstreamRefused when the head is there and says no; the head may come later than `heartbeat_s`.

        `again`: asks once more with a prompt that is too long, and has it cut.
        """
        self._reply = reply
        self._decode = decode
        self._stream = stream
        self._heartbeat_s = heartbeat_s
        self._again = again
        self._truncated = False
        self._accept()

    def _accept(self) -> None:
        """Looks at the head, if it is there: raises UpstreamRefused, or asks once more with the prompt cut."""
        while self._reply.status not in (0, 200):
            with contextlib.closing(self._reply):
                refusal = refused(self._reply.status, read_all(self._reply), retry_after_s(self._reply.headers))
            if self._again is None or not isinstance(refusal, PromptTooLong):
                raise refusal
            self._reply, self._again, self._truncated = self._again(), None, True

    def __iter__(self) -> Iterator[Sequence[Event]]:
        if not self._reply.status:
            yield ()  # opening has waited for one heartbeat already
        while self._reply.status != 200:
            if self._reply.wait_head(self._heartbeat_s):
                self._accept()
            else:
                yield ()
        yield from self._told(self._lines() if self._stream else self._whole())

    def _told(self, batches: Iterator[Sequence[Event]]) -> Iterator[Sequence[Event]]:
        """The batches, with the word of what was cut in front of the first event."""
        if not self._truncated:
            return batches
        first = next(batches, ())
        return chain([[Truncated(), *first]], batches)

    def _whole(self) -> Iterator[Sequence[Event]]:
        document = decode_object(read_all(self._reply))
        if document.get("error"):
            raise refused_line(document)
        events = decode_events(self._decode, document)
        if not _is_done(events):
            raise UpstreamCut(detail="single answer with done:false")
        yield events

    def _lines(self) -> Iterator[Sequence[Event]]:
        lines = LineSplitter()
        while (data := self._reply.read_some(self._heartbeat_s)) != b"":
            if data is None:
                yield ()
                continue
            events, failure = self._decode_lines(lines.feed(data))
            if events:
                yield events
            if failure is not None:
                raise failure
            if _is_done(events):
                self._drain()
                return
        events, failure = self._decode_lines([lines.rest()])
        if events:
            yield events
        if failure is not None or not _is_done(events):
            raise failure or UpstreamCut(detail="stream ended without its last line")

    def _decode_lines(self, lines: Sequence[bytes]) -> tuple[list[Event], UpstreamError | None]:
        """The events of some lines, and what went wrong behind them: what came before a fault is still delivered."""
        events: list[Event] = []
        try:
            for line in lines:
                if line:
                    document = decode_object(line)
                    if "error" in document:
                        return events, refused_line(document)
                    events += decode_events(self._decode, document)
        except UpstreamError as failure:
            return events, failure
        return events, None

    def _drain(self) -> None:
        with contextlib.suppress(GatewayError):
            self._reply.read_some(DRAIN_S)

    def close(self) -> None:
        """Closes the upstream's answer; at its end the connection is kept for the next one."""
        self._reply.close()


def retry_after_s(headers: Headers) -> int | None:
    """Seconds of a Retry-After header; a date there counts as none."""
    value = next((value for name, value in headers if name == "retry-after"), "")
    return int(value) if value.isdigit() and len(value) < 7 else None


def _is_model(row: Json) -> bool:
    return isinstance(row, dict) and isinstance(row.get("name"), str)


def _is_vector(vector: Json) -> bool:
    try:
        return isinstance(vector, list) and bool(array("f", vector))
    except (TypeError, OverflowError):
        return False


def _is_done(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Done)


def read_all(reply: Reply) -> bytes:
    """The whole body; raises UpstreamError above 64 MiB."""
    parts: list[bytes] = []
    size = 0
    while data := reply.read_some():
        parts.append(data)
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamError(
                "The model server's answer is too large.", detail=f"answer over {MAX_ANSWER_BYTES} bytes"
            )
    return b"".join(parts)
