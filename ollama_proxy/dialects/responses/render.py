"""Render hub events as OpenAI's responses and their events, and read their text for the chat log.

The last event has the whole answer. A summary of the conversation is a `compaction` item, which
stands for the conversation from then on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ollama_proxy.dialects.responses.events import (
    Events,
    OpenMessage,
    OpenReasoning,
    render_call_events,
)
from ollama_proxy.dialects.responses.output_items import (
    COMPLETED,
    IN_PROGRESS,
    INCOMPLETE,
    PLAIN,
    ResponseShape,
    new_id,
    render_output,
    render_usage,
    seal,
    status_of,
)
from ollama_proxy.errors import GatewayError, PromptTooLong, UpstreamError
from ollama_proxy.hub import Answer, Content, Done, Event, Json, Thinking, ToolCall
from ollama_proxy.telemetry import Transcript
from ollama_proxy.wire import SSE_COMMENT, encode_request, sse_comment

#: Statuses that have a code of their own at OpenAI; all others are `server_error`, but not a
#: prompt that is too long: clients compact the history if they get its code, which is not in
#: OpenAI's description.
_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


class ResponseRenderer:
    """One response. `echo`: the fields that repeat its request.

    Raises BadRequest for an echo that is nested too deeply.
    """

    content_type = "text/event-stream"

    def __init__(self, model: str, echo: Mapping[str, Json], shape: ResponseShape = PLAIN) -> None:
        self._head = {
            "id": new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
        }
        #: Encoded once for the first two events and the last.
        self._echo = encode_request(echo)
        self._shape = shape
        self._events = Events()
        self._begun = False
        #: Items that are complete.
        self._output: list[dict[str, Json]] = []
        self._open: OpenMessage | OpenReasoning | None = None
        #: Log probabilities that came with no text yet.
        self._held: list[Mapping[str, Json]] = []

    def _document(
        self, status: str, output: Sequence[Json], done: Done | None = None, error: Json = None
    ) -> Json:
        document = {
            **self._head,
            "status": status,
            "completed_at": int(time.time()) if status == COMPLETED else None,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if status == INCOMPLETE else None,
            "output": output,
            "usage": render_usage(done),
        }
        return orjson.Fragment(orjson.dumps(document)[:-1] + b"," + self._echo[1:])

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer."""
        [answer] = answers
        output = render_output(answer, self._shape)
        return orjson.dumps(self._document(status_of(answer.done), output, answer.done))

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Return the frames for a batch of events."""
        frames = [] if self._begun else [self._begin()]
        for event in events:
            match event:
                case Content(text, logprobs):
                    if not isinstance(self._open, OpenMessage):
                        if not text:
                            self._held += logprobs
                            continue
                        frames.append(self._close(COMPLETED))
                        self._open = OpenMessage(self._events, len(self._output))
                        frames.append(self._open.open())
                        logprobs, self._held = [*self._held, *logprobs], []
                    frames.append(self._open.add(text, logprobs))
                case Thinking(text):
                    if not isinstance(self._open, OpenReasoning):
                        frames.append(self._close(COMPLETED))
                        self._open = OpenReasoning(self._events, len(self._output), self._shape)
                        frames.append(self._open.open())
                    frames.append(self._open.add(text))
                case ToolCall():
                    frames.append(self._close(COMPLETED))
                    frame, item = render_call_events(
                        self._events, len(self._output), event, self._shape
                    )
                    frames.append(frame)
                    self._output.append(item)
                case Done():
                    status = status_of(event)
                    if self._open is None and not self._output:
                        # An empty answer is an empty message.
                        self._open = OpenMessage(self._events, 0)
                        frames.append(self._open.open())
                    frames.append(self._close(status))
                    frames.append(
                        self._events.render(
                            status, response=self._document(status, self._output, event)
                        )
                    )
        return b"".join(frames)

    def render_heartbeat(self, progress: str = "") -> bytes:
        """Return a comment, which keeps the stream alive; the first one
        follows the opening events."""
        return self._begin() + sse_comment(progress)

    def render_failure(self, error: GatewayError) -> bytes:
        """Return the frames that end a failed stream. An open item stays open; the last
        event has its text so far."""
        output = [*self._output, self._open.item(INCOMPLETE)] if self._open else self._output
        code = (
            error.slug
            if isinstance(error, PromptTooLong)
            else _CODES.get(error.status, "server_error")
        )
        fault = {"code": code, "message": str(error)}
        return self._begin() + self._events.render(
            "failed", response=self._document("failed", output, error=fault)
        )

    def _begin(self) -> bytes:
        """Return the opening events, unless they have been sent."""
        if self._begun:
            return b""
        self._begun = True
        response = self._document(IN_PROGRESS, [])
        return self._events.render("created", response=response) + self._events.render(
            "in_progress", response=response
        )

    def _close(self, status: str) -> bytes:
        """Close the open item, if there is one."""
        if self._open is None:
            return b""
        frames, item = self._open.close(status)
        self._open = None
        self._output.append(item)
        return frames


#: Events that end a response; its status is in the response that they contain.
_ENDS = ("response.completed", "response.incomplete", "response.failed")


def read_transcript(document: dict[str, Any], transcript: Transcript) -> None:
    """Read a whole response, or an event of one."""
    kind = document.get("type")
    if kind == "response.output_text.delta":
        transcript.text(document["delta"])
    elif kind == "response.reasoning_text.delta":
        transcript.think(document["delta"])
    elif kind == "response.output_item.done":
        _read_call(document["item"], transcript)
    elif kind in _ENDS:
        transcript.finish(document["response"].get("status"))
        transcript.record_failure(document["response"].get("error"))
    elif kind == "error":
        transcript.record_failure(document)
    elif document.get("object") == "response":
        for item in document["output"]:
            _read_call(item, transcript)
            add = transcript.think if item["type"] == "reasoning" else transcript.text
            for part in item.get("content") or ():
                add(part.get("text"))
        transcript.finish(document.get("status"))


def _read_call(item: dict[str, Any], transcript: Transcript) -> None:
    match item["type"]:
        case "function_call":
            transcript.call(None, name=item["name"], arguments=item["arguments"])
        case "custom_tool_call":
            transcript.call(None, name=item["name"], arguments=item["input"])
        case "tool_search_call":
            transcript.call(None, name="tool_search", arguments=item["arguments"])


class CompactionRenderer(ResponseRenderer):
    """A response whose only item is the compaction. Clients don't show it, so its
    text is not streamed."""

    def __init__(self, model: str, echo: Mapping[str, Json], shape: ResponseShape) -> None:
        super().__init__(model, echo, shape)
        self._summary: list[str] = []

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer; raises UpstreamError for an empty summary."""
        [answer] = answers
        item = render_compaction(answer.content)
        return orjson.dumps(self._document(status_of(answer.done), [item], answer.done))

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Return the frames for a batch of events: comments until the summary is complete. Raises
        UpstreamError for an empty summary."""
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
                    status = status_of(event)
                    frames.append(
                        self._events.render(status, response=self._document(status, [item], event))
                    )
        return b"".join(frames)


def render_compaction(summary: str) -> dict[str, Json]:
    """Render the item for a summary; raises UpstreamError if it is empty: the client would
    lose its conversation."""
    if not summary.strip():
        raise UpstreamError(
            "The model returned no summary of the conversation.", detail="empty compaction"
        )
    return {"type": "compaction", "id": new_id("cmp"), "encrypted_content": seal(summary)}
