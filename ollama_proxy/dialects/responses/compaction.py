"""Render a summary of the conversation as a `compaction` item, which stands for the conversation from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from ollama_proxy.dialects.responses.output_items import COMPLETED, INCOMPLETE, ResponseShape, is_cut, new_id
from ollama_proxy.dialects.responses.reasoning_blob import seal
from ollama_proxy.dialects.responses.render import ResponseRenderer
from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Answer, Content, Done, Event, Json
from ollama_proxy.wire import SSE_COMMENT


class CompactionRenderer(ResponseRenderer):
    """A response whose only item is the compaction. Clients don't show it, so its text is not streamed."""

    def __init__(self, model: str, echo: Mapping[str, Json], shape: ResponseShape) -> None:
        super().__init__(model, echo, shape)
        self._summary: list[str] = []

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer; raises UpstreamError for an empty summary."""
        [answer] = answers
        item = render_compaction(answer.content)
        return orjson.dumps(self._document(_status(answer.done), [item], answer.done))

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Return the frames for a batch of events: comments until the summary is complete. Raises UpstreamError for an
        empty summary."""
        frames = [self._begin(), SSE_COMMENT]
        for event in events:
            match event:
                case Content(text):
                    self._events.hold(text)
                    self._summary.append(text)
                case Done():
                    item = render_compaction("".join(self._summary))
                    frames += [
                        self._events.render("output_item.added", output_index=0, item=item),
                        self._events.render("output_item.done", output_index=0, item=item),
                    ]
                    status = _status(event)
                    frames.append(self._events.render(status, response=self._document(status, [item], event)))
        return b"".join(frames)


def render_compaction(summary: str) -> dict[str, Json]:
    """Render the item for a summary; raises UpstreamError if it is empty: the client would lose its conversation."""
    if not summary.strip():
        raise UpstreamError("The model returned no summary of the conversation.", detail="empty compaction")
    return {"type": "compaction", "id": new_id("cmp"), "encrypted_content": seal(summary)}


def _status(done: Done) -> str:
    return INCOMPLETE if is_cut(done) else COMPLETED
