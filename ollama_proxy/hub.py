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

#: Tokens, each with how likely it was, as Ollama lists them.
Logprobs = Sequence[Mapping[str, Json]]

#: "auto", "none", "required" or the name of one tool as {"name": ...}.
ToolChoice = str | Mapping[str, str] | None


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
    #: What else the client says of it, as it came: for upstreams that know it.
    passthrough_fields: Mapping[str, Json] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class ImageUrl:
    """An image that is still to be fetched; `where` is the part of the request that names it."""

    url: str
    where: str


#: Plain base64, no data URI; or where to get it.
Image = str | ImageUrl


@dataclass(slots=True, frozen=True)
class Message:
    role: str
    content: str = ""
    thinking: str | None = None
    images: Sequence[Image] = ()
    tool_calls: Sequence[ToolCall] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """What every request to a model may say."""

    model: str
    #: Ollama's option names: temperature, num_predict, stop, ...
    options: Mapping[str, Json] = field(default_factory=dict)
    keep_alive: str | float | None = None
    #: True: what is too long for the model may be cut, and the answer says so; else it is refused.
    truncate: bool | None = None
    #: For the whole answer.
    timeout_ms: int | None = None
    #: Who asked, by the client's own word; for logs and providers.
    user: str | None = None
    #: Fields without an equivalent here, as the client sent them: for upstreams that know them.
    passthrough_fields: Mapping[str, Json] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class TextRequest(ModelRequest):
    """What chats and completions share."""

    stream: bool = False
    think: bool | str | None = None
    #: What counts where neither the client nor the operator says anything about thinking; None: the model's default.
    think_default: bool | None = None
    #: Thinking is left out of the answer.
    exclude_reasoning: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    #: How many answers, to each prompt.
    n: int = 1


@dataclass(slots=True, kw_only=True)
class ChatRequest(TextRequest):
    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    #: "json" or a JSON Schema.
    format: str | Mapping[str, Json] | None = None
    #: Thinking that the model can't do is left away instead of refused.
    lenient_think: bool = False


@dataclass(slots=True, kw_only=True)
class GenerateRequest(TextRequest):
    prompt: str
    #: All of them where there are several; `prompt` is the first.
    prompts: Sequence[str] = ()
    system: str | None = None
    suffix: str | None = None


@dataclass(slots=True, kw_only=True)
class EmbedRequest(ModelRequest):
    input: Sequence[str]
    dimensions: int | None = None


@dataclass(slots=True, frozen=True)
class EmbedAnswer:
    #: One vector per input, in the order of the inputs.
    embeddings: Sequence[Sequence[float]]
    #: Tokens read.
    prompt_eval_count: int
    #: Inputs were too long, and were cut.
    truncated: bool = False


@dataclass(slots=True, frozen=True)
class Model:
    """One model as a list shows it; `modified_at` in whole seconds since 1970."""

    name: str
    modified_at: int
    owned_by: str
    #: In Ollama's words ("completion", "tools", "vision", "thinking", "embedding", "insert"); None: nobody tells.
    capabilities: frozenset[str] | None = None
    #: In tokens; None: nobody tells.
    context_length: int | None = None
    #: The row of Ollama's own list.
    row: Mapping[str, Json] | None = None


@dataclass(slots=True, frozen=True)
class Thinking:
    text: str
    logprobs: Logprobs = ()


@dataclass(slots=True, frozen=True)
class Content:
    text: str
    logprobs: Logprobs = ()


@dataclass(slots=True, frozen=True)
class Usage:
    """How many tokens an answer took; None: the upstream did not report it."""

    #: The whole prompt, with what came from a cache.
    prompt: int | None = None
    completion: int | None = None
    #: Of the prompt: read from the upstream's cache, and written to it.
    cached: int | None = None
    cache_written: int | None = None

    def __add__(self, other: Usage) -> Usage:
        if self is NO_USAGE:  # most requests have one answer
            return other
        return Usage(
            _sum(self.prompt, other.prompt),
            _sum(self.completion, other.completion),
            _sum(self.cached, other.cached),
            _sum(self.cache_written, other.cache_written),
        )


NO_USAGE = Usage()


def _sum(first: int | None, second: int | None) -> int | None:
    return second if first is None else first + (second or 0)


@dataclass(slots=True, frozen=True)
class Done:
    """The model has finished; always the last event. Counts are tokens, 0 if the upstream did not report them."""

    done_reason: str
    prompt_eval_count: int = 0
    eval_count: int = 0
    #: The answer outgrew the context, and went on without its oldest tokens.
    outgrown: bool = False
    #: See Usage.
    cached: int | None = None
    cache_written: int | None = None

    @property
    def usage(self) -> Usage:
        """What the answer took."""
        return Usage(self.prompt_eval_count, self.eval_count, self.cached, self.cache_written)


@dataclass(slots=True, frozen=True)
class Choice:
    """What follows belongs to the answer with this index. Only there where several answers were asked for."""

    index: int


@dataclass(slots=True, frozen=True)
class Truncated:
    """The prompt was too long, and its oldest parts were left out; comes before everything else."""


Event = Thinking | Content | ToolCall | Done | Choice | Truncated


@dataclass(slots=True)
class Answer:
    """A whole answer, put together from its events."""

    content: str
    thinking: str
    tool_calls: list[ToolCall]
    #: Those of the content.
    logprobs: list[Mapping[str, Json]]
    done: Done


def collect(events: Iterable[Event]) -> list[Answer]:
    """The single answers that a stream of `events` amounts to, by index: one, except where several were asked for.
    Each must end with `Done`."""
    index, by_choice = 0, dict[int, list[Event]]({0: []})
    for event in events:
        if isinstance(event, Choice):
            index = event.index
        else:
            by_choice.setdefault(index, []).append(event)
    return [_answer(by_choice[index]) for index in sorted(by_choice)]


def _answer(events: Iterable[Event]) -> Answer:
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
            case ToolCall():
                answer.tool_calls.append(event)
            case Done():
                answer.done = event
    answer.content, answer.thinking = "".join(content), "".join(thinking)
    return answer
