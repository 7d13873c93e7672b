"""The neutral middle: what a chat, a completion and an embedding are, whoever asks and whoever answers.

Request fields have the names of Ollama's `/api/chat`; an absent parameter stays absent (`None` or a missing key).
Answers are small events in the order in which they came. Pure values: no I/O, no dialect, no upstream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: A JSON value as orjson gives it.
Json = Any


@dataclass(slots=True, frozen=True)
class ToolCall:
    """One call of a tool by the model. `arguments` keeps the order of its keys."""

    id: str
    name: str
    arguments: Mapping[str, Json]


@dataclass(slots=True, frozen=True)
class Tool:
    """A tool that the model may call; `parameters` is its JSON Schema, untouched."""

    name: str
    description: str | None
    parameters: Mapping[str, Json] | None
    strict: bool | None = None


@dataclass(slots=True, frozen=True)
class Message:
    role: str
    content: str = ""
    thinking: str | None = None
    #: Plain base64, no data URI.
    images: Sequence[str] = ()
    tool_calls: Sequence[ToolCall] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None


@dataclass(slots=True)
class ChatRequest:
    model: str
    messages: Sequence[Message]
    stream: bool = False
    tools: Sequence[Tool] = ()
    #: "auto", "none", "required" or the name of one tool as {"name": ...}.
    tool_choice: str | Mapping[str, str] | None = None
    parallel_tool_calls: bool | None = None
    #: "json" or a JSON Schema.
    format: str | Mapping[str, Json] | None = None
    think: bool | str | None = None
    #: Ollama's option names: temperature, num_predict, stop, ...
    options: Mapping[str, Json] = field(default_factory=dict)
    keep_alive: str | float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    #: Who asked, by the client's own word; for logs and providers.
    user: str | None = None
    n: int = 1
    #: Fields without an equivalent here, as the client sent them: for upstreams that know them.
    carried: Mapping[str, Json] = field(default_factory=dict)


@dataclass(slots=True)
class GenerateRequest:
    model: str
    prompt: str
    suffix: str | None = None
    stream: bool = False
    think: bool | str | None = None
    options: Mapping[str, Json] = field(default_factory=dict)
    keep_alive: str | float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    carried: Mapping[str, Json] = field(default_factory=dict)


@dataclass(slots=True)
class EmbedRequest:
    model: str
    input: Sequence[str]
    dimensions: int | None = None
    options: Mapping[str, Json] = field(default_factory=dict)
    keep_alive: str | float | None = None
    user: str | None = None
    carried: Mapping[str, Json] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class EmbedAnswer:
    #: One vector per input, in the order of the inputs.
    embeddings: Sequence[Sequence[float]]
    #: Tokens read.
    prompt_eval_count: int


@dataclass(slots=True, frozen=True)
class Model:
    """One model as a list shows it; `modified_at` in whole seconds since 1970."""

    name: str
    modified_at: int
    owned_by: str


@dataclass(slots=True, frozen=True)
class Thinking:
    text: str
    logprobs: Sequence[Mapping[str, Json]] = ()


@dataclass(slots=True, frozen=True)
class Content:
    text: str
    logprobs: Sequence[Mapping[str, Json]] = ()


@dataclass(slots=True, frozen=True)
class Done:
    """The model has finished; always the last event. Counts are tokens, 0 where the upstream gave none."""

    done_reason: str
    prompt_eval_count: int = 0
    eval_count: int = 0


Event = Thinking | Content | ToolCall | Done


@dataclass(slots=True)
class Answer:
    """A whole answer, put together from its events."""

    content: str
    thinking: str
    tool_calls: list[ToolCall]
    logprobs: list[Mapping[str, Json]]
    done: Done


def collect(events: Iterable[Event]) -> Answer:
    """The single answer that a stream of `events` amounts to; they must end with `Done`."""
    content: list[str] = []
    thinking: list[str] = []
    answer = Answer("", "", [], [], Done(""))
    for event in events:
        match event:
            case Content():
                content.append(event.text)
                answer.logprobs.extend(event.logprobs)
            case Thinking():
                thinking.append(event.text)
                answer.logprobs.extend(event.logprobs)
            case ToolCall():
                answer.tool_calls.append(event)
            case Done():
                answer.done = event
    answer.content, answer.thinking = "".join(content), "".join(thinking)
    return answer
