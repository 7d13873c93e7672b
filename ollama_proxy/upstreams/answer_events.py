"""The answer of a model server, read as events, or whole: what all kinds have in common. A Reader
decodes the bytes of events. The texts of errors lose their keys and addresses."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Protocol

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import (
    GatewayError,
    PromptTooLong,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from ollama_proxy.hub import Done, Event, Truncated
from ollama_proxy.upstreams.base import Headers, Reply

#: Largest single answer that is held in memory for translation, also if it came as a stream.
MAX_ANSWER_BYTES = 64 * 1024 * 1024

#: Seconds to wait for the end of the body once the answer is complete, so that the
#: connection can be reused.
DRAIN_S = 0.5

#: Seconds to wait for the counts after the end of an answer.
GRACE_S = 1.0

#: How much of an error response is read.
MOST_REFUSED_BYTES = 1 << 20

#: Keys in the formats of vendors, whole or with stars in the middle.
_VENDORS_KEYS = re.compile(
    r"\b(?:sk|gsk|ark|tgp|hf)[-_][A-Za-z0-9_*-]{6,}|\bBearer\s+\S+", re.IGNORECASE
)
_ADDRESSES = re.compile(r"https?://[^\s\"'<>)]+")

#: The events of some bytes, and the failure after them: events before a
#: failure are still delivered.
Read = tuple[list[Event], UpstreamError | None]

#: The error for a reply whose status is not 200.
DecodeRefusal = Callable[[Reply], UpstreamError]


class Reader(Protocol):
    """Bytes of one answer to events. The last event of a complete answer is `Done`."""

    #: None: the answer goes on. A number: only the counts are missing, and this is how many
    #: seconds to wait for them.
    grace_s: float | None

    def feed(self, data: bytes) -> Read:
        """Decodes the next bytes of a stream."""

    def end(self) -> Read:
        """Ends a stream: returns its last events, or what is missing."""

    def whole(self, body: bytes) -> list[Event]:
        """Decodes a single answer; raises UpstreamError."""


class AnswerEvents:
    """The events of one answer, streamed or single; see EventStream."""

    def __init__(
        self,
        reply: Reply,
        reader: Reader,
        *,
        stream: bool,
        heartbeat_s: float | None,
        decode_refusal: DecodeRefusal,
        resend: Callable[[], Reply] | None = None,
        max_bytes: float = inf,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Raises the error that `decode_refusal` makes of an error response, if
        its head is there already.

        `resend`: sends a prompt that was too long once more, to be truncated. `max_bytes`: the
        limit for a stream whose events are collected into a single answer.
        """
        self._clock = clock
        self._reply = reply
        self._reader = reader
        self._stream = stream
        self._heartbeat_s = heartbeat_s
        #: An empty batch says that the answer goes on if its data makes no event for this long:
        #: comments, and pieces of a long call.
        self._max_silence_s = inf if heartbeat_s is None else heartbeat_s
        self._decode_refusal = decode_refusal
        self._resend = resend
        self._bytes_left = max_bytes
        self._truncated = False
        #: Monotonic time of the last batch.
        self._batch_at = self._clock.monotonic()
        #: Monotonic time at which the wait for the counts ends; None: the answer has not finished.
        self._ends_at: float | None = None
        self._check_head()

    def _check_head(self) -> None:
        """Checks the head, if it is there: raises UpstreamError, or sends the request
        again with the prompt cut."""
        while self._reply.status not in (0, 200):
            with contextlib.closing(self._reply):
                refusal = self._decode_refusal(self._reply)
            if self._resend is None or not isinstance(refusal, PromptTooLong):
                raise refusal
            self._reply, self._resend, self._truncated = self._resend(), None, True

    def __iter__(self) -> Iterator[Sequence[Event]]:
        if not self._reply.status:
            yield ()  # `open` has waited for one heartbeat already
        while self._reply.status != 200:
            if self._reply.wait_head(self._heartbeat_s):
                self._check_head()
            else:
                yield ()
        if self._stream:
            batches = self._read_stream()
        else:
            events = self._reader.whole(read_all(self._reply))
            if not _is_done(events):
                raise UpstreamCut(detail="single answer without its end")
            batches = iter([events])
        if self._truncated:
            yield [Truncated(), *next(batches, ())]
        yield from batches

    def _read_stream(self) -> Iterator[Sequence[Event]]:
        while (data := self._read_some()) != b"":
            if data is None:
                yield ()
                continue
            self._bytes_left -= len(data)
            if self._bytes_left < 0:
                raise too_large()
            events, failure = self._reader.feed(data)
            if events or self._clock.monotonic() - self._batch_at >= self._max_silence_s:
                self._batch_at = self._clock.monotonic()
                yield events
            if failure is not None:
                raise failure
            if _is_done(events):
                with contextlib.suppress(GatewayError):
                    self._reply.read_some(DRAIN_S)
                return
        events, failure = self._reader.end()
        if events:
            yield events
        if failure is not None or not _is_done(events):
            raise failure or UpstreamCut(detail="stream ended without its end")

    def _read_some(self) -> bytes | None:
        """The next bytes; None after a heartbeat without any; b"" at the end, also that of
        the wait for the counts."""
        grace_s = self._reader.grace_s
        if grace_s is None:
            return self._reply.read_some(self._heartbeat_s)
        if self._ends_at is None:
            self._ends_at = self._clock.monotonic() + grace_s
        return read_before(self._reply, self._ends_at, self._clock)

    def close(self) -> None:
        """Closes the upstream's answer; a connection at its end is reused."""
        self._reply.close()


def retry_after_s(headers: Headers) -> int | None:
    """Seconds of a Retry-After header; None for a date, and without the header."""
    value = next((value for name, value in headers if name == "retry-after"), "")
    return int(value) if value.isdigit() and len(value) < 7 else None


def _is_done(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Done)


def too_large() -> UpstreamError:
    """The error for an answer that is too large to be held in memory."""
    return UpstreamError(
        "The model server's answer is too large.", detail=f"answer over {MAX_ANSWER_BYTES} bytes"
    )


def read_all(reply: Reply) -> bytes:
    """The whole body; raises UpstreamError above 64 MiB."""
    parts: list[bytes] = []
    size = 0
    while data := reply.read_some():
        parts.append(data)
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise too_large()
    return b"".join(parts)


def read_before(reply: Reply, ends_at: float, clock: Clock) -> bytes:
    """The next bytes of an answer that is complete but for its counts; b"" at its end, at a
    failure, and from the monotonic time `ends_at` on."""
    with contextlib.suppress(UpstreamCut, UpstreamTimeout):
        # A reply may wake up early without data.
        while (left_s := ends_at - clock.monotonic()) > 0:
            if (data := reply.read_some(left_s)) is not None:
                return data
    return b""


def read_refusal(reply: Reply) -> bytes:
    """The body of an error response, up to its limit."""
    parts: list[bytes] = []
    size = 0
    while size < MOST_REFUSED_BYTES and (data := reply.read_some()):
        parts.append(data)
        size += len(data)
    return b"".join(parts)[:MOST_REFUSED_BYTES]


def without_keys(text: str, secrets: Sequence[str] = ()) -> str:
    """The text of a provider without these secrets, without keys, and without addresses: one
    of them could be ours."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "...")
    return _ADDRESSES.sub("...", _VENDORS_KEYS.sub("...", text))
