"""OpenAI's audio transcriptions, to upstreams that take their forms: the form is written anew with
the upstream's name of the model, and the answer is passed on as it comes, be it JSON, plain text,
subtitles or a stream."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain

import orjson
from flask import Response

from ollama_proxy.errors import BadRequest, GatewayError, UpstreamCut, UpstreamError
from ollama_proxy.gateway.delivery import SSE, deliver
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.passthrough.edits import AnswerEdits
from ollama_proxy.gateway.responses import (
    JSON,
    check_head,
    forward_headers,
    stream_when_open,
    streamed,
    whole,
)
from ollama_proxy.hub import Json
from ollama_proxy.upstreams import (
    DRAIN_S,
    Node,
    Part,
    Reply,
    UpstreamRequest,
    read_all,
    read_before,
    write_form,
)
from ollama_proxy.wire import DONE, EventCutter, EventTail, read, sse_comment

#: The formats of transcriptions besides JSON: `text`, `vtt` and `srt`.
TEXTS = ("text/plain", "text/vtt", "application/x-subrip")

#: Part of the last event of a stream, unless that is `[DONE]`.
_END = b'"transcript.text.done"'


class TranscriptionPassthrough:
    """One form with a recording, and the transcription of it."""

    def __init__(self, exchange: Exchange, parts: Sequence[Part], heartbeat_s: float) -> None:
        self._exchange = exchange
        self._parts = parts
        #: Seconds between the comments of a stream that is silent; None: it is no stream.
        self.heartbeat_s = heartbeat_s if exchange.stream else None
        self._tail = EventTail()

    def send(self, node: Node, upstream_model: str) -> Reply:
        """Returns the reply of a node that calls the model `upstream_model`. Raises BadRequest if
        the node transcribes nothing, UpstreamError for other failures."""
        exchange, upstream = self._exchange, node.upstream
        self._upstream, self._upstream_model = upstream, upstream_model
        if upstream.transcriptions_path is None:
            raise self._unsupported()
        named = (
            replace(part, data=upstream_model.encode()) if part.name == "model" else part
            for part in self._parts
        )
        content_type, body = write_form(named)
        headers = (("Content-Type", content_type), ("Accept", SSE if exchange.stream else "*/*"))
        reply = upstream.forward(
            UpstreamRequest("POST", upstream.transcriptions_path, body, headers=headers),
            exchange.call,
        )
        try:
            if reply.status != 200:
                error = upstream.decode_refusal(reply, model=upstream_model)
                # Not an answer of this API: the server does not have the path.
                raise (
                    self._unsupported()
                    if reply.status in (404, 405) and type(error) is UpstreamError
                    else error
                )
            expected = (JSON, *TEXTS, SSE) if exchange.stream else (JSON, *TEXTS)
            self._content_type = check_head(reply, expected) or JSON
        except GatewayError:
            reply.close()
            raise
        return reply

    def _unsupported(self) -> BadRequest:
        return BadRequest(
            f"{self._exchange.model} does not support audio transcriptions", param="model"
        )

    def answer(self, opening: Generator[tuple[()], None, Reply]) -> Response:
        """Returns the client's answer. Waits for the first event of a stream, so that an early
        failure gets its real status."""
        try:
            next(opening)
        except StopIteration as opened:
            return self._answer(opened.value)
        return stream_when_open(self._exchange, opening, self._read_stream)

    @property
    def _edits(self) -> AnswerEdits:
        name = None if self._upstream_model == self._exchange.model else self._exchange.model
        return AnswerEdits(name=name, without_usage=False)

    def _read_stream(self, reply: Reply) -> Iterator[bytes]:
        """Yields the client's events and comments, whatever the answer is."""
        if self._content_type.startswith(SSE):
            yield from self._read_events(reply, self._edits)
        else:
            yield _as_events(self._read_whole(reply, self._edits), self._content_type)

    def _answer(self, reply: Reply) -> Response:
        exchange, edits = self._exchange, self._edits
        exchange.on_finish(reply.close)
        if self._content_type.startswith(SSE):
            pieces = self._read_stream(reply)
            sent = chain((next(pieces),), pieces)
            response = streamed(
                deliver(exchange, sent, exchange.dialect.errors.render_error_frame), SSE
            )
        elif exchange.stream:  # Ollama, among others, does not know `stream`
            response = whole(
                _as_events(self._read_whole(reply, edits), self._content_type), content_type=SSE
            )
        else:
            response = whole(self._read_whole(reply, edits), content_type=self._content_type)
        forward_headers(reply, response)
        return response

    def _read_whole(self, reply: Reply, edits: AnswerEdits) -> bytes:
        with closing(reply):
            body = read_all(reply)
        if not self._content_type.startswith(JSON):
            return body
        document = read(body)
        self._tail.note_whole(document)
        if self._tail.failure is not None:
            raise self._failure(self._tail.failure)
        if "text" not in document:
            raise UpstreamError(detail="a transcription without text")
        self._exchange.usage = self._tail.end().usage
        return edits.document(body, document)

    def _failure(self, document: dict[str, Json]) -> UpstreamError:
        return self._upstream.decode_error(document, model=self._upstream_model)

    def _read_events(self, reply: Reply, edits: AnswerEdits) -> Iterator[bytes]:
        """Yields whole events as they come, and a comment after each heartbeat's time without any.
        Raises UpstreamError for one that reports a failure, and at the end if the one that ends a
        transcription is missing."""
        tail, cutter = self._tail, EventCutter()
        is_complete, clock = False, self._exchange.call.clock
        data: bytes | None = None
        try:
            while data != b"":
                if is_complete:
                    data = read_before(reply, clock.monotonic() + DRAIN_S, clock)
                else:
                    data = reply.read_some(self.heartbeat_s)
                if data is None:
                    yield sse_comment(self._exchange.progress)
                elif events := cutter.feed(data) if data else cutter.rest():
                    self._exchange.progress = ""
                    if passed := edits.events(tail.feed(events)):
                        yield passed
                    is_complete = is_complete or tail.done or _END in events
                    if tail.failure is not None:
                        raise self._failure(tail.failure)
            if not is_complete:
                raise UpstreamCut(detail="stream ended without its end")
        finally:
            self._exchange.usage = tail.end().usage


def _as_events(body: bytes, content_type: str) -> bytes:
    """Renders a single answer as the stream that its client asked for."""
    document = (
        read(body) if content_type.startswith(JSON) else {"text": body.decode("utf-8", "replace")}
    )
    end = {"type": "transcript.text.done", "text": document["text"]}
    if "usage" in document:
        end["usage"] = document["usage"]
    events = ({"type": "transcript.text.delta", "delta": document["text"]}, end)
    return (
        b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
        + b"data: "
        + DONE
        + b"\n\n"
    )
