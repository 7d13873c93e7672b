"""Render hub events as OpenAI's answers and chunks, and read their text for the chat log.

The role comes once, indexes count from 0 without gaps, a tool's id and name come only in its
first delta; then one finish chunk, the usage, and `[DONE]`. The helpers of the official
clients fail on anything else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from statistics import fmean
from typing import Any

import orjson

from ollama_proxy.dialects.content_parts import render_logprobs
from ollama_proxy.dialects.openai.errors import OpenAIErrors
from ollama_proxy.dialects.tools import render_custom_input
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import (
    NO_USAGE,
    Answer,
    Choice,
    Content,
    Done,
    Event,
    Json,
    Logprobs,
    Model,
    Thinking,
    ToolCall,
)
from ollama_proxy.telemetry import Transcript
from ollama_proxy.wire import sse_comment, sse_frame

FINGERPRINT = "fp_ollama"
DONE = b"data: [DONE]\n\n"

#: The end of a chunk that is not the last of its choice.
GOES_ON = b',"finish_reason":null}]}\n\n'

#: The field of the calls in a chat: `tool_calls`, or the older `function_call`.
TOOLS, FUNCTIONS = "tool_calls", "function_call"


@dataclass(slots=True)
class _Choice:
    """One choice of a stream: the beginning of its chunks, encoded once, and how much of
    it has been rendered."""

    prefix: bytes
    calls: int = 0
    #: The offset of its next text, in characters.
    offset: int = 0


class _OpenAIRenderer:
    """The common part of chat completions and completions; see Renderer."""

    content_type = "text/event-stream"
    #: The choice that the current events belong to.
    _choice: _Choice

    def __init__(self, document: Mapping[str, Json], n: int, *, include_usage: bool) -> None:
        """`document`: the fields that all chunks have."""
        self._document = document
        self._n = n
        self._include_usage = include_usage
        #: The choices of a stream, once it has begun.
        self._choices: list[_Choice] = []
        self._dones: list[Done] = []

    def _start(self, field: bytes) -> list[_Choice]:
        """Begin the stream: encode the beginning of each choice's chunks, up to
        the value of `field`."""
        head = b"data: " + orjson.dumps({**self._document, "choices": []})[:-2]
        self._choices = [
            _Choice(b'%b{"index":%d,"%b":' % (head, index, field)) for index in range(self._n)
        ]
        self._choice = self._choices[0]
        return self._choices

    def render_heartbeat(self, progress: str = "") -> bytes:
        """Return a comment, which keeps the stream alive."""
        return sse_comment(progress)

    def render_failure(self, error: GatewayError) -> bytes:
        """Return the frames that end a failed stream."""
        return OpenAIErrors().render_error_frame(error)

    def _end(self, done: Done) -> list[bytes]:
        """Return the frames after the end of a choice: none until the last choice has ended."""
        self._dones.append(done)
        if len(self._dones) < self._n:
            return []
        if not self._include_usage:
            return [DONE]
        return [sse_frame({**self._document, "choices": [], "usage": usage(*self._dones)}), DONE]


class ChatRenderer(_OpenAIRenderer):
    """One chat completion, of one choice or several."""

    def __init__(
        self,
        model: str,
        *,
        include_usage: bool,
        n: int = 1,
        calls_as: str = TOOLS,
        customs: frozenset[str] = frozenset(),
        service_tier: str = "",
    ) -> None:
        """`customs`: the names of the tools whose calls have text instead of arguments;
        `service_tier`: "" if the request names none."""
        document = {
            "id": f"chatcmpl-{secrets.token_hex(14)}",
            "created": int(time.time()),
            "model": model,
            "object": "chat.completion.chunk",
            "system_fingerprint": FINGERPRINT,
        }
        if service_tier:
            document["service_tier"] = service_tier
        self._calls_as = calls_as
        self._customs = customs
        super().__init__(document, n, include_usage=include_usage)

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer."""
        choices: list[Json] = []
        for index, answer in enumerate(answers):
            message: dict[str, Json] = {
                "role": "assistant",
                "content": answer.content,
                "refusal": None,
            }
            if answer.thinking:
                # Two names are in use for it: vLLM's and DeepSeek's.
                message |= {"reasoning": answer.thinking, "reasoning_content": answer.thinking}
            if answer.tool_calls:
                calls = [render_call(call, self._customs) for call in answer.tool_calls]
                message["content"] = answer.content or None
                message[self._calls_as] = calls if self._calls_as == TOOLS else calls[0]["function"]
            choice = {
                "index": index,
                "message": message,
                "logprobs": _logprobs(answer.logprobs) if answer.logprobs else None,
                "finish_reason": finish_reason(
                    answer.done, bool(answer.tool_calls), self._calls_as
                ),
            }
            choices.append(choice)
        tokens = usage(*(answer.done for answer in answers))
        return orjson.dumps(
            {**self._document, "object": "chat.completion", "choices": choices, "usage": tokens}
        )

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Return the frames for a batch of events."""
        frames: list[bytes] = []
        if not self._choices:
            # The roles of all choices, in order: openai-python's helper mixes up choices that
            # begin in another order.
            role = orjson.dumps({"role": "assistant", "content": ""}) + GOES_ON
            frames += [choice.prefix + role for choice in self._start(b"delta")]
        for event in events:
            match event:
                case Content(text, logprobs):
                    # Nearly all events are like this one: no dict and no
                    # concatenation for each of them.
                    extra = b',"logprobs":' + orjson.dumps(_logprobs(logprobs)) if logprobs else b""
                    frames += (
                        self._choice.prefix,
                        b'{"content":',
                        orjson.dumps(text),
                        b"}",
                        extra,
                        GOES_ON,
                    )
                case Thinking(text):
                    # OpenAI's log probabilities are only those of the content.
                    frames.append(self._chunk({"reasoning": text, "reasoning_content": text}))
                case ToolCall():
                    number, self._choice.calls = self._choice.calls, self._choice.calls + 1
                    if self._calls_as == TOOLS:
                        frames.append(
                            self._chunk(
                                {TOOLS: [{"index": number, **render_call(event, self._customs)}]}
                            )
                        )
                    elif not number:  # the older form has only one
                        frames.append(self._chunk({FUNCTIONS: render_call(event)["function"]}))
                case Done():
                    reason = finish_reason(event, bool(self._choice.calls), self._calls_as)
                    frames += [self._chunk({}, reason=reason), *self._end(event)]
                case Choice(index):
                    self._choice = self._choices[index]
        return b"".join(frames)

    def _chunk(self, delta: dict[str, Json], reason: str | None = None) -> bytes:
        finish = b'"%b"' % reason.encode() if reason else b"null"
        return (
            self._choice.prefix + orjson.dumps(delta) + b',"finish_reason":' + finish + b"}]}\n\n"
        )


@dataclass(slots=True, frozen=True)
class CompletionShape:
    """The choices of which the answer to a request for completions consists."""

    #: Each has `n` choices.
    prompts: Sequence[str] = ("",)
    n: int = 1
    #: The number of answers that are generated for each prompt, of which the `n`
    #: most likely are returned.
    best_of: int = 1
    #: Whether the prompt precedes its answer.
    echo: bool = False
    #: Whether log probabilities are returned, if there are any.
    logprobs: bool = True


ONE_COMPLETION = CompletionShape()


class CompletionRenderer(_OpenAIRenderer):
    """One text completion, of one choice or several."""

    def __init__(
        self, model: str, *, include_usage: bool, shape: CompletionShape | None = None
    ) -> None:
        self._shape = shape = shape or ONE_COMPLETION
        document = {
            "id": f"cmpl-{secrets.token_hex(14)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        #: The text that precedes each choice.
        self._echoes = [
            prompt if shape.echo else "" for prompt in shape.prompts for _ in range(shape.n)
        ]
        super().__init__(document, len(self._echoes), include_usage=include_usage)

    def render_single(self, answers: Sequence[Answer]) -> bytes:
        """Return the body of a single answer."""
        made = len(answers) // len(self._shape.prompts)
        groups = [answers[start : start + made] for start in range(0, len(answers), made)]
        shown = [answer for group in groups for answer in most_likely(group, self._shape.n)]
        choices = [
            {
                "index": index,
                "text": self._echoes[index] + answer.content,
                "logprobs": legacy_logprobs(answer.logprobs, 0)
                if answer.logprobs and self._shape.logprobs
                else None,
                "finish_reason": finish_reason(answer.done, False),
            }
            for index, answer in enumerate(shown)
        ]
        tokens = usage(*(answer.done for answer in answers))
        return orjson.dumps({**self._document, "choices": choices, "usage": tokens})

    def render_stream(self, events: Sequence[Event]) -> bytes:
        """Return the frames for a batch of events."""
        frames: list[bytes] = []
        if not self._choices:
            echoed = zip(self._start(b"text"), self._echoes, strict=True)
            empty = b',"logprobs":null' + GOES_ON
            frames += [
                choice.prefix + orjson.dumps(echo) + empty for choice, echo in echoed if echo
            ]
        for event in events:
            match event:
                case Content(text, logprobs):
                    frames.append(self._chunk(text, logprobs))
                case Done():
                    frames += [
                        self._chunk("", reason=finish_reason(event, False)),
                        *self._end(event),
                    ]
                case Choice(index):
                    self._choice = self._choices[index]
        return b"".join(frames)

    def _chunk(self, text: str, logprobs: Logprobs = (), reason: str | None = None) -> bytes:
        choice = self._choice
        legacy = orjson.dumps(legacy_logprobs(logprobs, choice.offset)) if logprobs else b"null"
        finish = b'"%b"' % reason.encode() if reason else b"null"
        choice.offset += len(text)
        return b'%b%b,"logprobs":%b,"finish_reason":%b}]}\n\n' % (
            choice.prefix,
            orjson.dumps(text),
            legacy,
            finish,
        )


def most_likely(answers: Sequence[Answer], count: int) -> Sequence[Answer]:
    """Return `count` answers, those with the highest mean log probability of their tokens first; if
    there are no more than `count`, all of them in their order."""
    if len(answers) <= count:
        return answers
    return sorted(
        answers,
        key=lambda answer: fmean(
            [float(entry.get("logprob") or 0.0) for entry in answer.logprobs] or [-inf]
        ),
        reverse=True,
    )[:count]


def finish_reason(done: Done, called: bool, calls_as: str = TOOLS) -> str:
    """Return OpenAI's `finish_reason`; "length" has priority over a call."""
    if done.done_reason == "length":
        return "length"
    return calls_as if called else "stop"


def usage(*dones: Done) -> dict[str, Json]:
    """Return the sum of the tokens of all answers; thinking is part of the completion. Cache counts
    are omitted if no upstream reports any."""
    total = sum((done.usage for done in dones), NO_USAGE)
    prompt, completion = total.prompt or 0, total.completion or 0
    details = {"cached_tokens": total.cached, "cache_write_tokens": total.cache_written}
    reported = {name: tokens for name, tokens in details.items() if tokens is not None}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **({"prompt_tokens_details": reported} if reported else {}),
    }


def render_call(call: ToolCall, customs: frozenset[str] = frozenset()) -> dict[str, Json]:
    """Render a call, with its arguments as JSON text whose keys are in the model's order, or, if
    the tool is one of `customs`, as plain text."""
    if call.name in customs:
        custom = {"name": call.name, "input": render_custom_input(call.arguments)}
        return {"id": call.id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
    return {"id": call.id, "type": "function", "function": function}


def _logprobs(logprobs: Logprobs) -> dict[str, Json]:
    """Render the form of chat completions."""
    return {"content": render_logprobs(logprobs, spells=False), "refusal": None}


def legacy_logprobs(logprobs: Logprobs, offset: int) -> dict[str, Json]:
    """Render the form of completions, four parallel arrays; `offset` is that of the
    first token in the text."""
    tokens = [str(entry.get("token") or "") for entry in logprobs]
    offsets = list(accumulate(map(len, tokens[:-1]), initial=offset))
    tops = [
        {t.get("token") or "": t.get("logprob") for t in entry.get("top_logprobs") or ()}
        for entry in logprobs
    ]
    return {
        "tokens": tokens,
        "token_logprobs": [entry.get("logprob") or 0.0 for entry in logprobs],
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def render_models(models: Sequence[Model]) -> dict[str, Json]:
    """Render the list of models."""
    return {"object": "list", "data": [render_model(model) for model in models]}


def render_model(model: Model) -> dict[str, Json]:
    """Render one model."""
    row: dict[str, Json] = {
        "id": model.name,
        "object": "model",
        "created": model.modified_at,
        "owned_by": model.owned_by,
    }
    # OpenAI lists nothing of this; other providers call it so, and Ollama.
    if model.context_length:
        row["context_length"] = model.context_length
    if model.embedding_length:
        row["embedding_length"] = model.embedding_length
    if model.capabilities is not None:
        row["capabilities"] = sorted(model.capabilities)
    return row


def read_transcript(document: dict[str, Any], transcript: Transcript) -> None:
    """Read a whole answer, or a chunk of one."""
    for choice in document.get("choices") or ():
        index = choice.get("index")
        message = choice.get("delta") or choice.get("message") or {}
        # Two names are in use for the same thing, and some send both.
        transcript.think(message.get("reasoning_content") or message.get("reasoning"), index)
        transcript.text(
            message.get("content") or message.get("refusal") or choice.get("text"), index
        )
        for call in message.get("tool_calls") or ():
            _read_call(call, transcript, index)
        if function := message.get("function_call"):
            transcript.call(
                "function", index, name=function.get("name"), arguments=function.get("arguments")
            )
        transcript.finish(choice.get("finish_reason"), index)


def _read_call(call: dict[str, Any], transcript: Transcript, index: object) -> None:
    called = call.get("function") or call.get("custom") or {}
    arguments = called.get("arguments") or called.get("input")
    transcript.call(call.get("index"), index, name=called.get("name"), arguments=arguments)
