"""Answers of LiteLLM as hub events, and the end of its streams. LiteLLM itself
is not imported here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from math import inf
from typing import Any

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import UpstreamCut, UpstreamError
from ollama_proxy.hub import Event, Json
from ollama_proxy.upstreams.answer_events import GRACE_S
from ollama_proxy.upstreams.merged_streams import WorkerStream
from ollama_proxy.upstreams.openai.answers import ChunkDecoder

#: Chunks of a stream that LiteLLM may keep at each of its ends.
KEPT_CHUNKS = 8

#: Attributes of LiteLLM's streams with the finish reason that the provider sent.
_RECEIVED_REASONS = ("received_finish_reason", "intermittent_finish_reason")

#: An answer, or a chunk of one, in OpenAI's shape.
Document = Mapping[str, Json]


class LiteLLMEvents:
    """The events of one answer, streamed or single; see EventStream."""

    def __init__(
        self,
        feed: WorkerStream[Document],
        decoder: ChunkDecoder,
        heartbeat_s: float | None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Waits for its beginning, at most for one heartbeat; raises UpstreamError if it fails."""
        self._feed = feed
        self._clock = clock
        #: Ends the work of LiteLLM for this answer.
        self.close = feed.close
        self._decoder = decoder
        self._heartbeat_s = heartbeat_s
        #: Pieces of a long call make no events: after so many seconds without any, an empty batch
        #: says that the answer goes on.
        self._max_silence_s = inf if heartbeat_s is None else heartbeat_s
        #: Monotonic time of the last batch.
        self._batch_at = self._clock.monotonic()
        try:
            self._first = feed.take(heartbeat_s)
        except BaseException:
            feed.close()
            raise

    def __iter__(self) -> Iterator[Sequence[Event]]:
        documents = self._first
        while documents is None or documents:
            events: list[Event] = []
            failure = None
            try:
                for document in documents or ():
                    events += self._decoder.decode(document)
            except UpstreamError as error:
                failure = error
            if (
                events
                or documents is None
                or self._clock.monotonic() - self._batch_at >= self._max_silence_s
            ):
                self._batch_at = self._clock.monotonic()
                yield events
            if failure is not None:
                raise failure
            documents = self._take()
        if not self._decoder.finish_reason:
            raise UpstreamCut(detail="stream ended without finish_reason")
        yield self._decoder.end()

    def _take(self) -> list[Document] | None:
        """The next documents; None after a heartbeat without any; none at the end. Once the answer
        has finished, only its counts may follow, for a limited time."""
        if not self._decoder.finish_reason:
            return self._feed.take(self._heartbeat_s)
        try:
            return self._feed.take(GRACE_S) or []
        except UpstreamError:
            return []  # the answer is complete but for its counts


def read_stream(ask: Callable[..., Any], options: Mapping[str, Json]) -> Generator[Document]:
    """The chunks of a stream of LiteLLM, until its end or its cut; its connection is
    closed with the generator."""
    answer = ask(**options)
    try:
        for chunk in answer:
            document = chunk.model_dump()
            # LiteLLM reports a stream that was cut as complete, with an end that it has made up.
            has_end = any(choice.get("finish_reason") for choice in document.get("choices") or ())
            if has_end and not any(getattr(answer, name, "?") for name in _RECEIVED_REASONS):
                return
            yield document
            # LiteLLM keeps every chunk: kilobytes for each token. Counts are at its
            # beginning or at its end.
            kept = getattr(answer, "chunks", None)
            if isinstance(kept, list) and len(kept) > 8 * KEPT_CHUNKS:
                del kept[KEPT_CHUNKS:-KEPT_CHUNKS]
    finally:
        # LiteLLM keeps the connection in either of two places.
        stream = getattr(answer, "completion_stream", None)
        for holder in (stream, getattr(stream, "streaming_response", None)):
            if callable(close := getattr(holder, "close", None)):
                close()


def read_single(ask: Callable[..., Any], options: Mapping[str, Json]) -> Generator[Document]:
    """The single answer of LiteLLM."""
    yield ask(**options).model_dump()
