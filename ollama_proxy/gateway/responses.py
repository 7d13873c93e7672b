"""Flask's side of an answer: whole, passed through, or drawn batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import cast
from wsgiref.types import WSGIEnvironment

from flask import Response

from ollama_proxy.errors import BUSY_RETRY_S, UpstreamAuthError, UpstreamError, UpstreamRefused
from ollama_proxy.gateway.delivery import (
    CHARS_PER_TOKEN,
    SLICE_BYTES,
    deliver,
    native_parts,
    native_stream,
    no_frame,
    note_truncated,
    record_failure,
    record_stream_end,
    record_usage,
    render_frames,
)
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.hub import Content, Event, Thinking, collect
from ollama_proxy.upstreams import MAX_ANSWER_BYTES, EventStream, Headers, Reply, too_large
from ollama_proxy.wire import StreamTail

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

#: Answers up to this size are read whole first, so that a cut in their middle still becomes a real status.
WHOLE_BYTES = 1024 * 1024

#: What a piece of text takes besides its characters while an answer is collected, and the log probabilities of a token.
EVENT_BYTES, LOGPROBS_BYTES = 200, 500

#: The headers of an upstream's response that clients get, beside its content type and the length of a HEAD: those that
#: the protocols define for clients. All others are dropped: proxies and browsers obey them (X-Accel-Redirect,
#: Set-Cookie, Clear-Site-Data), or they describe the upstream's connection, its software or the operator's account.
FORWARDED_HEADERS = frozenset({"retry-after", "openai-processing-ms", "x-generation-id", "x-siliconcloud-trace-id"})


def whole(body: bytes, *, status: int = 200, content_type: str = JSON) -> Response:
    """A single answer."""
    return Response(body, status=status, content_type=content_type)


class Pieces:
    """The body of a stream as the server sees it: the generator itself, and what to run at its end."""

    def __init__(self, pieces: Iterator[bytes], close: Callable[[], None]) -> None:
        self._pieces = pieces
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


class StreamResponse(Response):
    """An answer whose pieces go to the server as they are: werkzeug's wrappers would run for every token."""

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        """See werkzeug's Response."""
        return Pieces(cast("Iterator[bytes]", self.response), self.close)


def streamed(pieces: Iterator[bytes], content_type: str) -> Response:
    """A stream: neither buffered by a proxy in front nor stored by anybody."""
    response = StreamResponse(pieces, content_type=content_type)
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["Cache-Control"] = "no-store"
    return response


def respond_with_reply(exchange: Exchange, reply: Reply) -> Response:
    """The upstream's answer as it came: status, content type and bytes. It is closed when the exchange
    is over."""
    exchange.on_finish(reply.close)
    content_type = check_head(reply)
    if content_type.startswith(NDJSON):
        first = reply.read_some()
        response = streamed(native_stream(exchange, reply, first or b""), content_type)
    else:
        response = _single(exchange, reply, content_type)
    response.status_code = reply.status
    forward_headers(reply, response)
    if reply.status == 503:
        response.headers.setdefault("Retry-After", str(BUSY_RETRY_S))
    if exchange.method == "HEAD":
        _set_length(response, _header(reply.headers, "content-length"))
    return response


def forward_headers(reply: Reply, response: Response) -> None:
    """Gives the client those headers of an upstream's response that it may have."""
    for name, value in reply.headers:
        if name in FORWARDED_HEADERS:
            response.headers[name] = value


def _set_length(response: Response, length: str | None) -> None:
    """The length that a GET would have; none where the upstream gave none."""
    response.automatically_set_content_length = False
    response.headers.pop("Content-Length", None)
    if length is not None:
        response.headers["Content-Length"] = length


def check_head(reply: Reply, expected: tuple[str, ...] = (JSON, NDJSON)) -> str:
    """The content type of an answer, "" for none; raises UpstreamError for an answer that no client of this API
    expects: a page of a proxy, a sign-in demand, a coding that nobody asked for."""
    content_type = _header(reply.headers, "content-type") or ""
    coding = _header(reply.headers, "content-encoding") or "identity"
    if reply.status in UpstreamAuthError.statuses:
        raise UpstreamAuthError(detail=f"status {reply.status}")
    if coding != "identity":
        raise UpstreamError(detail=f"content coding {coding[:20]!r} that was not asked for")
    media_type, _, parameters = content_type.partition(";")
    # Browsers split the value at commas and take the last type.
    if content_type and (media_type.rstrip() not in expected or "," in parameters):
        raise UpstreamError(detail=f"content type {content_type[:60]!r} with status {reply.status}")
    return content_type


def _header(headers: Headers, wanted: str) -> str | None:
    return next((value for name, value in headers if name == wanted), None)


def _single(exchange: Exchange, reply: Reply, content_type: str) -> Response:
    parts, size = [], 0
    while size <= WHOLE_BYTES and (data := reply.read_some()):
        parts.append(data)
        size += len(data)
    if size > WHOLE_BYTES:
        pieces = deliver(exchange, native_parts(exchange, reply, parts), no_frame)
        response = Response(pieces, content_type=content_type or None)
        _set_length(response, _header(reply.headers, "content-length"))
        return response
    body = b"".join(parts)
    tail = StreamTail()
    tail.feed(body)
    record_stream_end(exchange, tail)
    if reply.status >= 400:
        record_failure(exchange, UpstreamRefused(reply.status, ""))
    response = Response(body, content_type=content_type or None)
    if not content_type:
        del response.headers["Content-Type"]
    return response


def count_whole(exchange: Exchange, response: Response) -> None:
    """Notes the size of an answer that is no stream. A large one is written slice by slice: a client that takes it
    slowly is alive, one that takes nothing is not."""
    if response.is_streamed:
        return
    body = response.get_data()
    if len(body) > SLICE_BYTES:
        parts = (body[start : start + SLICE_BYTES] for start in range(0, len(body), SLICE_BYTES))
        response.response = deliver(exchange, parts, no_frame)
    else:
        exchange.sent(len(body))


def stream_response(exchange: Exchange, events: EventStream, renderer: Renderer) -> Response:
    """Events drawn as frames. Waits for the first of them, so that an early failure still gets its real status."""
    batches = iter(events)
    first = next(batches, ())
    note_truncated(exchange, first)
    frames = render_frames(exchange, first, batches, renderer)
    return streamed(deliver(exchange, frames, renderer.render_failure), renderer.content_type)


def _limited(events: EventStream) -> Iterator[Sequence[Event]]:
    """The batches of a single answer, or of several to one request; raises UpstreamError if they take too much memory
    together."""
    left = MAX_ANSWER_BYTES
    for batch in events:
        left -= EVENT_BYTES * len(batch)
        for event in batch:  # what calls hold has been limited where it was put together
            if isinstance(event, Content | Thinking):
                left -= len(event.text) + LOGPROBS_BYTES * len(event.logprobs)
        if left < 0:
            raise too_large()
        if batch:
            yield batch


def single_response(exchange: Exchange, events: EventStream, renderer: Renderer) -> Response:
    """Events collected and drawn as one answer."""
    with closing(events):
        batches = list(_limited(events))
    for batch in batches:
        note_truncated(exchange, batch)
    answers = collect(chain.from_iterable(batches))
    for answer in answers:
        record_usage(exchange, answer.done, (len(answer.content) + len(answer.thinking)) // CHARS_PER_TOKEN)
    if any(answer.done.done_reason == "length" for answer in answers):
        exchange.note_truncated("answer")
    return whole(renderer.render_single(answers))
