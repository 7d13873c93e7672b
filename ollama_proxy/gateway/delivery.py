"""Pieces of an answer on their way to the client, and how the exchange ended: decided here, once for all kinds."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import gevent

from ollama_proxy.errors import ClientGone, GatewayError, InternalError, UpstreamCut, UpstreamError, UpstreamRefused
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.rendering import Renderer
from ollama_proxy.hub import NO_USAGE, Choice, Done, Event, Truncated, Usage
from ollama_proxy.policy import renamed
from ollama_proxy.upstreams import Reply
from ollama_proxy.wire import PROMPT_CUT, StreamTail, escape_line_separators

log = logging.getLogger(__name__)

#: Whole answers above this size are written in slices of it, in bytes.
SLICE_BYTES = 64 * 1024

#: About how much a token is in text, and in the lines of Ollama's streams; for answers whose tokens nobody counted.
CHARS_PER_TOKEN, NATIVE_TOKEN_BYTES = 4, 130

#: What to say last when an answer fails in its middle; None where the dialect has no frame for that.
ErrorFrameRenderer = Callable[[GatewayError], bytes | None]


def record_failure(exchange: Exchange, error: GatewayError) -> None:
    """Notes what went wrong on the exchange, and in the log where it was the upstream's fault. From here on the error
    calls the model as the client does."""
    exchange.state, exchange.error = error.state, error.slug
    if exchange.target and isinstance(error, UpstreamRefused):
        error.args = (renamed(str(error), exchange.target, exchange.model),)
    if isinstance(error, UpstreamError) and error.status >= 500:
        fields = {"id": exchange.id, "upstream": exchange.failed_upstream, "error": error.slug, "status": error.status}
        log.warning("upstream_error", extra={"fields": fields | {"detail": error.detail[:500]}})


def deliver(exchange: Exchange, pieces: Iterator[bytes], render_failure: ErrorFrameRenderer) -> Iterator[bytes]:
    """Hands out the pieces and notes how it ended: a piece that is never asked for again has met a client that is
    gone, for nobody tells a generator that it was left.

    A failure ends with the last words, or, without any, with a connection that is cut: never with a clean end.
    """
    state, exchange.state = exchange.state, ClientGone.state
    try:
        for piece in pieces:
            exchange.sent(len(piece))
            yield piece
        if exchange.state == ClientGone.state:
            exchange.state = state
    except gevent.GreenletExit:
        exchange.state = "aborted"
        raise
    except Exception as error:  # whatever it was, the client must not take what it has for the whole answer
        failure = error if isinstance(error, GatewayError) else log_internal_error(exchange, error)
        record_failure(exchange, failure)
        frame = None if isinstance(failure, ClientGone) else render_failure(failure)
        if frame is None:
            # The server closes the connection without the final chunk, and without a traceback in its log.
            raise BrokenPipeError(errno.EPIPE, "the answer could not be completed") from error
        exchange.sent(len(frame))
        yield frame


def log_internal_error(exchange: Exchange, error: Exception) -> InternalError:
    """A fault of our own: its place goes to the log, nothing of it to the client."""
    log.error("internal_error", exc_info=error, extra={"fields": {"id": exchange.id}})
    return InternalError(f"The gateway failed to handle this request; its id is {exchange.id}.")


def no_frame(error: GatewayError) -> None:
    """The last words of an answer that is one JSON document: there are none."""


def native_stream(exchange: Exchange, reply: Reply, first: bytes) -> Iterator[bytes]:
    """Lines passed on as they arrive; a stream that stops without saying so gets an error as its last line."""
    tail = StreamTail()

    def render_failure(error: GatewayError) -> bytes:
        frame = exchange.dialect.errors.render_error_frame(error)
        return frame if tail.ends_with_newline else b"\n" + frame

    return deliver(exchange, _native_lines(exchange, reply, first, tail), render_failure)


def _native_lines(exchange: Exchange, reply: Reply, first: bytes, tail: StreamTail) -> Iterator[bytes]:
    data: bytes | None = first
    try:
        while data:
            tail.feed(data)
            yield data
            data = reply.read_some()
        if not tail.end().finished:
            raise UpstreamCut(detail="stream ended without its last line")
    except UpstreamError:
        # What goes wrong behind the line that ends a stream has spoilt nothing.
        if not tail.end().finished:
            raise
    finally:
        record_stream_end(exchange, tail)


def native_parts(exchange: Exchange, reply: Reply, parts: Sequence[bytes]) -> Iterator[bytes]:
    """A large single answer as it arrives; `parts` have arrived already."""
    tail = StreamTail()
    for data in chain(parts, iter(reply.read_some, b"")):
        if data:
            tail.feed(data)
            yield data
    record_stream_end(exchange, tail)


def render_frames(
    exchange: Exchange, first: Sequence[Event], batches: Iterator[Sequence[Event]], renderer: Renderer
) -> Iterator[bytes]:
    """Events drawn as frames, batch by batch; an empty batch becomes a heartbeat."""
    batch: Sequence[Event] | None = first
    estimated_tokens = 0
    try:
        while batch is not None:
            estimated_tokens += len(batch)
            if batch and isinstance(batch[-1], Done):
                # About a token each, and the end itself.
                record_usage(exchange, batch[-1], estimated_tokens - 1)
            if note_truncated(exchange, batch) and exchange.first_byte_at is not None:
                yield PROMPT_CUT  # the head, which would have said so, has gone
            if frame := escape_line_separators(renderer.render_stream(batch)) if batch else renderer.render_heartbeat():
                yield frame
            batch = next(batches, None)
    finally:
        if exchange.usage.completion is None and estimated_tokens:
            _estimate(exchange, estimated_tokens)  # it was cut; what was said has been said


def note_truncated(exchange: Exchange, batch: Sequence[Event]) -> bool:
    """Whether a batch begins with the word that the upstream had to cut the prompt; notes that it did."""
    cut = bool(batch) and isinstance(batch[0], Truncated | Choice) and any(isinstance(e, Truncated) for e in batch[:2])
    if cut:
        exchange.note_truncated("prompt")
    return cut


def record_stream_end(exchange: Exchange, tail: StreamTail) -> None:
    """Takes token counts, and an error that the upstream reported, from the end of a native answer."""
    end = tail.end()
    exchange.usage = end.usage
    if end.usage == NO_USAGE and exchange.bytes_out and (tail.ends_an_answer() or tail.is_in_an_answer()):
        _estimate(exchange, max(1, exchange.bytes_out // NATIVE_TOKEN_BYTES))
    if end.limited or _is_outgrown(exchange):
        exchange.note_truncated("answer")
    if end.failed:
        exchange.state, exchange.error = UpstreamError.state, "upstream_reported"


def _is_outgrown(exchange: Exchange) -> bool:
    """Whether a passed-through answer outgrew its context; the inputs of an embedding request are counted together."""
    usage = exchange.usage
    if exchange.is_outgrown is None or exchange.estimated or not usage.completion:
        return False
    return exchange.is_outgrown((usage.prompt or 0) + usage.completion)


def record_usage(exchange: Exchange, done: Done, estimated_tokens: int = 0) -> None:
    """Adds the token counts of an answer's last event; several answers may have been asked for. `estimated_tokens`:
    about how many tokens it had, for an upstream that counts none."""
    exchange.usage += done.usage
    if done.outgrown:
        exchange.note_truncated("answer")
    if estimated_tokens and not (done.eval_count or done.prompt_eval_count):
        _estimate(exchange, (exchange.usage.completion or 0) + estimated_tokens)


def _estimate(exchange: Exchange, completion: int) -> None:
    exchange.usage = Usage(len(exchange.body) // CHARS_PER_TOKEN, completion)
    exchange.estimated = True
