"""Hub events to OpenAI's responses and their events. There is no `[DONE]` here: the last event is the whole answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import orjson

from ollama_proxy.dialects.responses.events import Events, OpenMessage, OpenReasoning, draw_call
from ollama_proxy.dialects.responses.output_items import (
    COMPLETED,
    IN_PROGRESS,
    INCOMPLETE,
    is_cut,
    new_id,
    render_output,
    render_usage,
)
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Answer, Content, Done, Event, Json, Logprobs, Thinking, ToolCall
from ollama_proxy.wire import SSE_COMMENT, encode_request

#: Statuses with a word of their own in OpenAI's list of codes; all others are the server's fault.
_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


class ResponseRenderer:
    """One response. `echo` is what it repeats of its request; `sealed`: thinking also in the form to be sent back.

    Raises BadRequest for an echo that is nested too deep.
    """

    content_type = "text/event-stream"

    def __init__(self, model: str, echo: Mapping[str, Json], *, sealed: bool) -> None:
        self._head = {"id": new_id("resp"), "object": "response", "created_at": int(time.time()), "model": model}
        #: Encoded once: it stands in the first two events and in the last.
        self._echo = encode_request(echo)
        self._sealed = sealed
        self._events = Events()
        self._begun = False
        #: Items that are complete.
        self._output: list[dict[str, Json]] = []
        self._open: OpenMessage | OpenReasoning | None = None
        #: Log probabilities of text that the model server still holds back.
        self._held: list[Mapping[str, Json]] = []

    def _document(self, status: str, output: Sequence[Json], done: Done | None = None, error: Json = None) -> Json:
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
        """See Renderer."""
        [answer] = answers
        status = INCOMPLETE if is_cut(answer.done) else COMPLETED
        return orjson.dumps(self._document(status, render_output(answer, sealed=self._sealed), answer.done))

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """See Renderer."""
        frames = [] if self._begun else [self._begin()]
        for event in events:
            match event:
                case Content(text, logprobs):
                    opened = self._open
                    frames.append((opened.add if isinstance(opened, OpenMessage) else self._speak)(text, logprobs))
                case Thinking(text):
                    opened = self._open
                    frames.append((opened.add if isinstance(opened, OpenReasoning) else self._think)(text))
                case ToolCall():
                    frames.append(self._close(COMPLETED))
                    frame, item = draw_call(self._events, len(self._output), event)
                    frames.append(frame)
                    self._output.append(item)
                case Done():
                    status = INCOMPLETE if is_cut(event) else COMPLETED
                    if self._open is None and not self._output:
                        # An answer without a word is an empty message.
                        self._open = OpenMessage(self._events, 0)
                        frames.append(self._open.open())
                    frames.append(self._close(status))
                    frames.append(self._events.draw(status, response=self._document(status, self._output, event)))
        return b"".join(frames)

    def render_heartbeat(self) -> bytes:
        """See Renderer. The first one already tells the client its answer's id."""
        return self._begin() + SSE_COMMENT

    def render_failure(self, error: GatewayError) -> bytes:
        """See Renderer. What is open stays open; the last event has it as far as it came."""
        output = [*self._output, self._open.item(INCOMPLETE)] if self._open else self._output
        fault = {"code": _CODES.get(error.status, "server_error"), "message": str(error)}
        begun = self._begin()
        return begun + self._events.draw("failed", response=self._document("failed", output, error=fault))

    def _begin(self) -> bytes:
        """The opening events, unless they have gone out."""
        if self._begun:
            return b""
        self._begun = True
        response = self._document(IN_PROGRESS, [])
        return self._events.draw("created", response=response) + self._events.draw("in_progress", response=response)

    def _speak(self, text: str, logprobs: Logprobs) -> bytes:
        """Begins a message."""
        if not text:
            self._held += logprobs
            return b""
        closing = self._close(COMPLETED)
        self._open = opened = OpenMessage(self._events, len(self._output))
        held, self._held = self._held, []
        return closing + opened.open() + opened.add(text, [*held, *logprobs])

    def _think(self, text: str) -> bytes:
        """Begins to think."""
        closing = self._close(COMPLETED)
        self._open = opened = OpenReasoning(self._events, len(self._output), sealed=self._sealed)
        return closing + opened.open() + opened.add(text)

    def _close(self, status: str) -> bytes:
        """Ends the item that is open, if one is."""
        if self._open is None:
            return b""
        frames, item = self._open.close(status)
        self._open = None
        self._output.append(item)
        return frames
