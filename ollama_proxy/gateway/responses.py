"""Flask responses: whole, passed through, or rendered batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import cast
from wsgiref.types import WSGIEnvironment

from flask import Response
from werkzeug.datastructures import Headers

from ollama_proxy.errors import BUSY_RETRY_S, UpstreamAuthError, UpstreamError, UpstreamRefused
from ollama_proxy.gateway.delivery import (
    CHARS_PER_TOKEN,
    SLICE_BYTES,
    SSE,
    deliver,
    native_parts,
    native_stream,
    note_reports,
    record_failure,
    record_stream_end,
    record_usage,
    render_frames,
)
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.hub import Content, Event, Thinking, collect
from ollama_proxy.upstreams import MAX_ANSWER_BYTES, EventStream, Reply, too_large
from ollama_proxy.wire import StreamTail, sse_comment

JSON = "application/json"
NDJSON = "application/x-ndjson"

#: Answers up to this size are read whole first, so that a cut in their middle
#: still gets a real status.
WHOLE_BYTES = 1024 * 1024

#: What a piece of text takes besides its characters while an answer is collected, and the log
#: probabilities of a token.
EVENT_BYTES, LOGPROBS_BYTES = 200, 500

#: The headers of an upstream's response that clients get, besides its content type and the length
#: of a HEAD: those that the protocols define for clients. All others are dropped: proxies and
#: browsers obey them (X-Accel-Redirect, Set-Cookie, Clear-Site-Data), or they describe the
#: upstream's connection, its software or the operator's account.
FORWARDED_HEADERS = frozenset(
    {"retry-after", "openai-processing-ms", "x-generation-id", "x-siliconcloud-trace-id"}
)


@dataclass(slots=True, eq=False)
class Pieces:
    """The body of a response for the server: its pieces, and what to run at its end."""

    pieces: Iterable[bytes]
    close: Callable[[], None]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)


class DirectResponse(Response):
    """A response with a body, whose headers and pieces go to the server as they are:
    werkzeug would copy all headers in search of those that it completes, and its wrappers
    would run for every token."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Returns the headers without werkzeug's additions."""
        return self.headers

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Returns the body without werkzeug's wrappers."""
        return Pieces(cast("Iterable[bytes]", self.response), self.close)


def whole(body: bytes, *, status: int = 200, content_type: str = JSON) -> Response:
    """A single answer."""
    return DirectResponse(body, status=status, content_type=content_type)


def streamed(pieces: Iterator[bytes], content_type: str) -> Response:
    """A stream that proxies neither buffer nor store."""
    response = DirectResponse(pieces, content_type=content_type)
    response.headers["X-Accel-Buffering"] = "no"
    return response


def respond_with_reply(
    exchange: Exchange, reply: Reply, refusal: UpstreamRefused | None = None
) -> Response:
    """Returns the upstream's answer as it came: status, content type and bytes. The reply
    is closed when the exchange is over. `refusal`: the failure to record if it is not that
    of the reply's status."""
    exchange.on_finish(reply.close)
    content_type = check_head(reply)
    if content_type.startswith(NDJSON):
        first = reply.read_some()
        response = streamed(native_stream(exchange, reply, first or b""), content_type)
    else:
        response = _read_single(exchange, reply, content_type, refusal)
    response.status_code = reply.status
    forward_headers(reply, response)
    if reply.status == 503:
        response.headers.setdefault("Retry-After", str(BUSY_RETRY_S))
    if exchange.method == "HEAD":
        _set_length(response, reply)
    return response


def forward_headers(reply: Reply, response: Response) -> None:
    """Copies the headers of an upstream's reply that clients may have."""
    for name, value in reply.headers:
        if name in FORWARDED_HEADERS:
            response.headers[name] = value


def _set_length(response: Response, reply: Reply) -> None:
    """Sets the length that the upstream declared; none if it declared none."""
    response.automatically_set_content_length = False
    response.headers.pop("Content-Length", None)
    for name, value in reply.headers:
        if name == "content-length":
            response.headers["Content-Length"] = value


def check_head(reply: Reply, expected: tuple[str, ...] = (JSON, NDJSON)) -> str:
    """Returns the content type of an answer, "" for none; raises UpstreamError for an answer that
    no client of this API expects: a page of a proxy, a demand for credentials, a content coding
    that was not requested."""
    headers = dict(reply.headers)
    content_type, coding = (
        headers.get("content-type", ""),
        headers.get("content-encoding") or "identity",
    )
    if reply.status in UpstreamAuthError.statuses:
        raise UpstreamAuthError(detail=f"status {reply.status}")
    if coding != "identity":
        raise UpstreamError(detail=f"content coding {coding[:20]!r} that was not asked for")
    media_type, _, parameters = content_type.partition(";")
    # Browsers split the value at commas and use the last type.
    if content_type and (media_type.rstrip() not in expected or "," in parameters):
        raise UpstreamError(detail=f"content type {content_type[:60]!r} with status {reply.status}")
    return content_type


def _read_single(
    exchange: Exchange, reply: Reply, content_type: str, refusal: UpstreamRefused | None
) -> Response:
    """Returns an answer that is one document: read whole if it is small, else
    forwarded as it arrives."""
    parts, size = [], 0
    while size <= WHOLE_BYTES and (data := reply.read_some()):
        parts.append(data)
        size += len(data)
    if size > WHOLE_BYTES:
        pieces = deliver(exchange, native_parts(exchange, reply, parts), None)
        response = Response(pieces, content_type=content_type or None)
        _set_length(response, reply)
        return response
    body = b"".join(parts)
    tail = StreamTail()
    tail.feed(body)
    record_stream_end(exchange, tail)
    if reply.status >= 400:
        record_failure(exchange, refusal or UpstreamRefused(reply.status, ""))
    response = Response(body, content_type=content_type or None)
    if not content_type:
        del response.headers["Content-Type"]
    return response


def count_whole(exchange: Exchange, response: Response) -> None:
    """Records the size of an answer that is not streamed. A large one is written in slices: a
    client that takes it slowly is alive, one that takes nothing is not."""
    if response.is_streamed:
        return
    size = sum(map(len, cast("list[bytes]", response.response)))
    if size <= SLICE_BYTES:
        exchange.count_sent(size)
    else:
        body = response.get_data()
        parts = (body[start : start + SLICE_BYTES] for start in range(0, size, SLICE_BYTES))
        response.response = deliver(exchange, parts, None)


def stream_when_open(
    exchange: Exchange,
    opening: Generator[tuple[()], None, Reply],
    read: Callable[[Reply], Iterator[bytes]],
) -> Response:
    """Returns a stream of server-sent events whose request still waits for a slot:
    comments say so meanwhile."""

    def read_late() -> Iterator[bytes]:
        while True:
            yield sse_comment(exchange.progress)
            try:
                next(opening)
            except StopIteration as opened:
                reply: Reply = opened.value
                break
        exchange.on_finish(reply.close)
        yield from read(reply)

    exchange.on_finish(opening.close)
    return streamed(deliver(exchange, read_late(), exchange.dialect.errors.render_error_frame), SSE)


def stream_response(exchange: Exchange, events: EventStream, renderer: Renderer) -> Response:
    """Renders events as frames. Waits for the first of them, so that an early failure still
    gets its real status."""
    batches = iter(events)
    first = next(batches, ())
    note_reports(exchange, first)
    frames = render_frames(exchange, first, batches, renderer)
    return streamed(deliver(exchange, frames, renderer.render_failure), renderer.content_type)


def single_response(exchange: Exchange, events: EventStream, renderer: Renderer) -> Response:
    """Renders the events of one answer, or of several to one request, as one document; raises
    UpstreamError if they take too much memory together."""
    collected: list[Event] = []
    left = MAX_ANSWER_BYTES
    with closing(events):
        for batch in events:
            note_reports(exchange, batch)
            left -= EVENT_BYTES * len(batch)
            for event in batch:  # the arguments of tool calls were limited when they were assembled
                if isinstance(event, Content | Thinking):
                    left -= len(event.text) + LOGPROBS_BYTES * len(event.logprobs)
            if left < 0:
                raise too_large()
            collected += batch
    answers = collect(collected)
    for answer in answers:
        record_usage(
            exchange, answer.done, (len(answer.content) + len(answer.thinking)) // CHARS_PER_TOKEN
        )
        if answer.done.done_reason == "length":
            exchange.note_truncated("answer")
    return whole(renderer.render_single(answers))
