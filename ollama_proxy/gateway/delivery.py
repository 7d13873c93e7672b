"""Delivers the pieces of an answer to the client, and decides how the exchange ended: for
all kinds of answers."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, takewhile

import gevent

from ollama_proxy.errors import (
    ClientGone,
    GatewayError,
    InternalError,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
)
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.hub import NO_USAGE, Approximated, Choice, Done, Event, Truncated, Usage
from ollama_proxy.policy import renamed
from ollama_proxy.upstreams import Reply
from ollama_proxy.wire import APPROXIMATED, PROMPT_CUT, StreamTail, escape_line_separators

log = logging.getLogger(__name__)

#: Whole answers above this size are written in slices of it, in bytes.
SLICE_BYTES = 64 * 1024

#: About the size of a token in text, and in the lines of Ollama's streams; for answers
#: without token counts.
CHARS_PER_TOKEN, NATIVE_TOKEN_BYTES = 4, 130

#: Server-sent events, the only streams that may have comments.
SSE = "text/event-stream"

#: The events that a batch with reports begins with: the reports themselves, and the
#: index of their answer.
_BEFORE_TEXT = (Truncated, Approximated, Choice)

#: Renders the last frame of an answer that failed in its middle.
ErrorFrameRenderer = Callable[[GatewayError], bytes]


def record_failure(exchange: Exchange, error: GatewayError) -> None:
    """Records the error on the exchange, and in the log if it is the upstream's fault. From now on
    its text has the client's name of the model."""
    exchange.state, exchange.error = error.state, error.slug
    if exchange.target and isinstance(error, UpstreamRefused):
        error.text = renamed(error.text, exchange.target, exchange.model)
    if isinstance(error, UpstreamError) and error.status >= 500:
        fields = {
            "id": exchange.id,
            "upstream": exchange.failed_upstream,
            "error": error.slug,
            "status": error.status,
        }
        log.warning("upstream_error", extra={"fields": fields | {"detail": error.detail[:500]}})


def deliver(
    exchange: Exchange, pieces: Iterator[bytes], render_failure: ErrorFrameRenderer | None
) -> Iterator[bytes]:
    """Yields the pieces and records how the exchange ended: if the next piece is never requested,
    the client is gone, because a generator is not told that it was abandoned.

    A failure ends with an error frame or, if `render_failure` is None, with a cut
    connection: never with a clean end.
    """
    state, exchange.state = exchange.state, ClientGone.state
    try:
        for piece in pieces:
            exchange.count_sent(len(piece))
            yield piece
        if exchange.state == ClientGone.state:
            exchange.state = state
    except gevent.GreenletExit:
        exchange.state = "aborted"
        raise
    except Exception as error:  # the client must not mistake a part for the whole
        failure = error if isinstance(error, GatewayError) else log_internal_error(exchange, error)
        record_failure(exchange, failure)
        if render_failure is None or isinstance(failure, ClientGone):
            # The server closes the connection without the final chunk, and without
            # a traceback in its log.
            raise BrokenPipeError(errno.EPIPE, "the answer could not be completed") from error
        frame = render_failure(failure)
        exchange.count_sent(len(frame))
        yield frame


def log_internal_error(exchange: Exchange, error: Exception) -> InternalError:
    """Logs an error of the gateway itself with its traceback; the returned error reveals
    nothing of it to clients."""
    log.error("internal_error", exc_info=error, extra={"fields": {"id": exchange.id}})
    return InternalError(f"The gateway failed to handle this request; its id is {exchange.id}.")


def native_stream(exchange: Exchange, reply: Reply, first: bytes) -> Iterator[bytes]:
    """Forwards lines as they arrive; a stream that stops without its last line gets an
    error as the last one."""
    tail = StreamTail()

    def read_lines() -> Iterator[bytes]:
        data: bytes | None = first
        try:
            while data:
                tail.feed(data)
                yield data
                data = reply.read_some()
            if not tail.end().finished:
                raise UpstreamCut(detail="stream ended without its last line")
        except UpstreamError:
            # An error after the line that ends the stream does no harm.
            if not tail.end().finished:
                raise
        finally:
            record_stream_end(exchange, tail)

    def render_failure(error: GatewayError) -> bytes:
        frame = exchange.dialect.errors.render_error_frame(error)
        return frame if tail.ends_with_newline else b"\n" + frame

    return deliver(exchange, read_lines(), render_failure)


def native_parts(exchange: Exchange, reply: Reply, parts: Sequence[bytes]) -> Iterator[bytes]:
    """Forwards a large single answer as it arrives; `parts` have arrived already."""
    tail = StreamTail()
    for data in chain(parts, iter(reply.read_some, b"")):
        if data:
            tail.feed(data)
            yield data
    record_stream_end(exchange, tail)


def render_frames(
    exchange: Exchange,
    first: Sequence[Event],
    batches: Iterator[Sequence[Event]],
    renderer: Renderer,
) -> Iterator[bytes]:
    """Renders events as frames, batch by batch; an empty batch becomes a heartbeat."""
    batch: Sequence[Event] | None = first
    estimated_tokens = 0
    try:
        while batch is not None:
            if batch:
                estimated_tokens += len(batch)
                if isinstance(batch[-1], Done):
                    # About one token for each event but the last.
                    record_usage(exchange, batch[-1], estimated_tokens - 1)
                if isinstance(batch[0], _BEFORE_TEXT):
                    comment = note_reports(exchange, batch)
                    if comment and renderer.content_type == SSE:
                        yield comment
                frame = escape_line_separators(renderer.render_stream(batch))
            else:
                frame = renderer.render_heartbeat("" if estimated_tokens else exchange.progress)
            if frame:
                yield frame
            batch = next(batches, None)
    finally:
        if exchange.usage.completion is None and estimated_tokens:
            # The answer was cut, but these tokens were generated.
            _estimate(exchange, estimated_tokens)


def note_reports(exchange: Exchange, batch: Sequence[Event]) -> bytes:
    """Notes on the exchange what a batch reports besides the answer: a prompt that the upstream had
    to cut, or a field of the request that the answer does not follow. Returns a comment with it if
    it is too late for a header."""
    comments = b""
    for event in takewhile(lambda event: isinstance(event, _BEFORE_TEXT), batch):
        if isinstance(event, Truncated):
            exchange.note_truncated("prompt")
            comments += PROMPT_CUT
        elif isinstance(event, Approximated):
            exchange.approximated = tuple(dict.fromkeys([*exchange.approximated, event.field]))
            comments += APPROXIMATED % event.field.encode()
    return comments if exchange.first_byte_at else b""


def record_stream_end(exchange: Exchange, tail: StreamTail) -> None:
    """Takes token counts, and an error that the upstream reported, from the
    end of a native answer."""
    end = tail.end()
    exchange.usage = usage = end.usage
    exchange.metrics = end.metrics
    if usage == NO_USAGE and exchange.bytes_out and tail.is_an_answer():
        _estimate(exchange, max(1, exchange.bytes_out // NATIVE_TOKEN_BYTES))
    # The tokens of all inputs of an embedding request are counted together, and
    # exceed no single context.
    tokens = (usage.prompt or 0) + usage.completion if usage.completion else None
    if end.limited or (
        tokens and exchange.is_outgrown is not None and exchange.is_outgrown(tokens)
    ):
        exchange.note_truncated("answer")
    if end.failed:
        exchange.state, exchange.error = UpstreamError.state, "upstream_reported"


def record_usage(exchange: Exchange, done: Done, estimated_tokens: int = 0) -> None:
    """Adds the token counts of an answer's last event; a request may ask for several
    answers. `estimated_tokens`: about how many tokens the answer had, for an upstream
    that reports no counts."""
    exchange.usage += done.usage
    if done.outgrown:
        exchange.note_truncated("answer")
    if estimated_tokens and not (done.eval_count or done.prompt_eval_count):
        _estimate(exchange, (exchange.usage.completion or 0) + estimated_tokens)


def _estimate(exchange: Exchange, completion: int) -> None:
    exchange.usage = Usage(len(exchange.body) // CHARS_PER_TOKEN, completion)
    exchange.estimated = True
