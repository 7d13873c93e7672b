"""Answers of LiteLLM as hub events, and how its streams end and are let go of. LiteLLM itself is not imported here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ollama_proxy.errors import UpstreamCut, UpstreamError
from ollama_proxy.hub import Event, Json
from ollama_proxy.upstreams.answer_events import GRACE_S
from ollama_proxy.upstreams.openai.answers import ChunkDecoder
from ollama_proxy.upstreams.worker_stream import WorkerStream

#: Chunks of a stream that LiteLLM may keep at each of its ends.
KEPT_CHUNKS = 8

#: An answer, or a chunk of one, in OpenAI's shape.
Document = Mapping[str, Json]


class LiteLLMEvents:
    """The events of one answer, streamed or single; see EventStream."""

    def __init__(self, feed: WorkerStream[Document], decoder: ChunkDecoder, heartbeat_s: float | None) -> None:
        """Waits for its beginning, at most for one heartbeat; raises UpstreamError where there is none."""
        self._feed = feed
        self._decoder = decoder
        self._heartbeat_s = heartbeat_s
        #: Monotonic time of the last batch.
        self._told_at = time.monotonic()
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
            # Pieces of a long call make no events: after a heartbeat without any, an empty batch says that it goes on.
            if (
                events
                or documents is None
                or (self._heartbeat_s is not None and time.monotonic() - self._told_at >= self._heartbeat_s)
            ):
                self._told_at = time.monotonic()
                yield events
            if failure is not None:
                raise failure
            documents = self._next()
        if not self._decoder.finish_reason:
            raise UpstreamCut(detail="stream ended without finish_reason")
        yield self._decoder.end()

    def _next(self) -> list[Document] | None:
        """The next documents, None after a heartbeat without any, nothing at the end, which is also that of all
        patience: once it has finished only its counts may follow."""
        if not self._decoder.finish_reason:
            return self._feed.take(self._heartbeat_s)
        try:
            return self._feed.take(GRACE_S) or []
        except UpstreamError:
            return []  # all that matters has come

    def close(self) -> None:
        """Ends what LiteLLM still does for this answer."""
        self._feed.close()


def is_made_up(answer: Any, document: Document) -> bool:
    """Whether LiteLLM has given a stream an end that the provider did not: it calls one that was cut complete."""
    ends = any(choice.get("finish_reason") for choice in document.get("choices") or ())
    return ends and not any(
        getattr(answer, name, "?") for name in ("received_finish_reason", "intermittent_finish_reason")
    )


def forget(answer: Any) -> None:
    """Lets go of the middle of a stream, of which LiteLLM keeps every chunk: kilobytes for each token. Counts stand at
    its beginning or at its end."""
    kept = getattr(answer, "chunks", None)
    if isinstance(kept, list) and len(kept) > 8 * KEPT_CHUNKS:
        del kept[KEPT_CHUNKS:-KEPT_CHUNKS]


def let_go(answer: Any) -> None:
    """Closes the connection of a stream, wherever LiteLLM keeps it."""
    stream = getattr(answer, "completion_stream", None)
    for holder in (stream, getattr(stream, "streaming_response", None)):
        if callable(close := getattr(holder, "close", None)):
            close()
