"""Hub events to OpenAI's answers and chunks.

The role once, indexes dense from 0, id and name of a tool only in its first delta, one finish chunk, then the usage,
`[DONE]` last: the helpers of the official clients break on anything else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

import orjson

from ollama_proxy.hub import Answer, Content, Done, Event, Json, Thinking, ToolCall
from ollama_proxy.wire import SSE_COMMENT, sse_frame

FINGERPRINT = "fp_ollama"
DONE = b"data: [DONE]\n\n"

Logprobs = Sequence[Mapping[str, Json]]


class ChatRenderer:
    """One chat completion."""

    content_type = "text/event-stream"

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(14)}", "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self._calls = 0
        self._begun = False
        # Everything of a chunk that does not change from one to the next, encoded once.
        head = self._document("chat.completion.chunk") | {"choices": []}
        self._prefix = b"data: " + orjson.dumps(head)[:-2] + b'{"index":0,"delta":'

    def _document(self, kind: str) -> dict[str, Json]:
        return {**self._head, "object": kind, "system_fingerprint": FINGERPRINT}

    def render_single(self, answer: Answer) -> bytes:
        """See Renderer."""
        message: dict[str, Json] = {"role": "assistant", "content": answer.content, "refusal": None}
        if answer.thinking:
            # Two names are in use for the same thing: vLLM's and DeepSeek's.
            message |= {"reasoning": answer.thinking, "reasoning_content": answer.thinking}
        if answer.tool_calls:
            message["content"] = answer.content or None
            message["tool_calls"] = [render_call(call) for call in answer.tool_calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": render_logprobs(answer.logprobs),
            "finish_reason": finish_reason(answer.done, bool(answer.tool_calls)),
        }
        return orjson.dumps(self._document("chat.completion") | {"choices": [choice], "usage": usage(answer.done)})

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """See Renderer."""
        frames = [] if self._begun else [self._chunk({"role": "assistant", "content": ""})]
        self._begun = True
        for event in events:
            match event:
                case Content(text, logprobs):
                    frames.append(self._chunk({"content": text}, logprobs))
                case Thinking(text, logprobs):
                    frames.append(self._chunk({"reasoning": text, "reasoning_content": text}, logprobs))
                case ToolCall():
                    frames.append(self._chunk({"tool_calls": [{"index": self._calls, **render_call(event)}]}))
                    self._calls += 1
                case Done():
                    frames += self._end(event)
        return b"".join(frames)

    def render_heartbeat(self) -> bytes:
        """See Renderer."""
        return SSE_COMMENT

    def _chunk(self, delta: dict[str, Json], logprobs: Logprobs = (), reason: str | None = None) -> bytes:
        extra = b',"logprobs":' + orjson.dumps(render_logprobs(logprobs)) if logprobs else b""
        finish = b'"%b"' % reason.encode() if reason else b"null"
        return self._prefix + orjson.dumps(delta) + extra + b',"finish_reason":' + finish + b"}]}\n\n"

    def _end(self, done: Done) -> list[bytes]:
        frames = [self._chunk({}, reason=finish_reason(done, bool(self._calls)))]
        if self._include_usage:
            frames.append(sse_frame(self._document("chat.completion.chunk") | {"choices": [], "usage": usage(done)}))
        return [*frames, DONE]


class CompletionRenderer:
    """One text completion."""

    content_type = "text/event-stream"

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._head = {
            "id": f"cmpl-{secrets.token_hex(14)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._include_usage = include_usage
        self._offset = 0

    def render_single(self, answer: Answer) -> bytes:
        """See Renderer."""
        choice = self._choice(answer.content, answer.logprobs, finish_reason(answer.done, False))
        return orjson.dumps({**self._head, "choices": [choice], "usage": usage(answer.done)})

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """See Renderer."""
        frames: list[bytes] = []
        for event in events:
            match event:
                case Content(text, logprobs):
                    frames.append(self._chunk(self._choice(text, logprobs, None)))
                case Done():
                    frames.append(self._chunk(self._choice("", (), finish_reason(event, False))))
                    if self._include_usage:
                        frames.append(sse_frame({**self._head, "choices": [], "usage": usage(event)}))
                    frames.append(DONE)
        return b"".join(frames)

    def render_heartbeat(self) -> bytes:
        """See Renderer."""
        return SSE_COMMENT

    def _chunk(self, choice: dict[str, Json]) -> bytes:
        return sse_frame({**self._head, "choices": [choice]})

    def _choice(self, text: str, logprobs: Logprobs, reason: str | None) -> dict[str, Json]:
        legacy = legacy_logprobs(logprobs, self._offset) if logprobs else None
        self._offset += len(text)
        return {"index": 0, "text": text, "logprobs": legacy, "finish_reason": reason}


def finish_reason(done: Done, called: bool) -> str:
    """OpenAI's word for `done_reason`: a limit that was hit outweighs a call."""
    if done.done_reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


def usage(done: Done) -> dict[str, int]:
    """Tokens; thinking is part of the completion."""
    prompt, completion = done.prompt_eval_count, done.eval_count
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def render_call(call: ToolCall) -> dict[str, Json]:
    """A call with its arguments as text, keys in the model's order."""
    function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
    return {"id": call.id, "type": "function", "function": function}


def render_logprobs(logprobs: Logprobs) -> dict[str, Json] | None:
    """The chat form; `bytes` and `top_logprobs` are required there, and Ollama omits them when empty."""
    if not logprobs:
        return None
    content = [
        _token(entry) | {"top_logprobs": [_token(t) for t in entry.get("top_logprobs") or ()]} for entry in logprobs
    ]
    return {"content": content, "refusal": None}


def _token(entry: Mapping[str, Json]) -> dict[str, Json]:
    return {"token": entry.get("token") or "", "logprob": entry.get("logprob") or 0.0, "bytes": entry.get("bytes")}


def legacy_logprobs(logprobs: Logprobs, offset: int) -> dict[str, Json]:
    """The completions form: four lists side by side; `offset` is the first token's place in the text."""
    tokens = [str(entry.get("token") or "") for entry in logprobs]
    offsets = [offset + sum(map(len, tokens[:index])) for index in range(len(tokens))]
    tops = [{t.get("token") or "": t.get("logprob") for t in entry.get("top_logprobs") or ()} for entry in logprobs]
    return {
        "tokens": tokens,
        "token_logprobs": [entry.get("logprob") or 0.0 for entry in logprobs],
        "top_logprobs": tops,
        "text_offset": offsets,
    }
