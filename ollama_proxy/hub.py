"""The neutral form of chats, completions and embeddings, between all dialects and all upstreams.

Request fields have the names of Ollama's `/api/chat`; an absent parameter stays absent (`None` or a
missing key). Answers are sequences of small events. Pure values: no I/O, no dialect, no upstream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: A JSON value as orjson returns it.
Json = Any

#: Tokens with their log probabilities, as Ollama lists them.
Logprobs = Sequence[Mapping[str, Json]]

#: "auto", "none", "required" or the name of one tool as {"name": ...}.
ToolChoice = str | Mapping[str, str] | None


@dataclass(slots=True, frozen=True)
class ToolCall:
    """A tool call by the model. `arguments` keeps the order of its keys."""

    id: str
    name: str
    arguments: Mapping[str, Json]


@dataclass(slots=True, frozen=True)
class Tool:
    """A tool that the model may call; `parameters` is its JSON Schema, unchanged."""

    name: str
    description: str | None
    parameters: Mapping[str, Json] | None
    strict: bool | None = None
    #: Its other fields, unchanged, for upstreams that support them.
    passthrough_fields: Mapping[str, Json] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class ImageUrl:
    """An image that has not been fetched yet; `where`: its place in the request."""

    url: str
    where: str


@dataclass(slots=True, frozen=True)
class Document:
    """A PDF file."""

    #: Plain base64, as the client sent it.
    data: str
    #: Its file name or title, on one line; "" if it has none.
    name: str
    #: How much of the message's text stands before it, in characters.
    offset: int


#: Base64 without the prefix of a data URI, or a URL.
Image = str | ImageUrl

#: What a message has besides its text, in the order in which it stands there.
Attachment = Image | Document


@dataclass(slots=True, frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str = ""
    thinking: str | None = None
    attachments: Sequence[Attachment] = ()
    tool_calls: Sequence[ToolCall] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None


@dataclass(slots=True, kw_only=True)
class ModelRequest:
    """The fields that all requests to models have."""

    model: str
    #: Ollama's option names: temperature, num_predict, stop, ...
    options: Mapping[str, Json] = field(default_factory=dict)
    keep_alive: str | float | None = None
    #: Whether a prompt that is too long is truncated, which the answer reports, or refused. None:
    #: it is refused, but the input of embeddings is truncated, as by Ollama itself.
    truncate: bool | None = None
    #: Limit for the whole answer.
    timeout_ms: int | None = None
    #: The user that the client names; for logs and providers.
    user: str | None = None
    #: Fields without an equivalent here, unchanged, for upstreams that support them.
    passthrough_fields: Mapping[str, Json] = field(default_factory=dict)
    #: Parts of the request that were left out, such as types of tools, and parts that only the
    #: prompt asks for. The client is told in response headers.
    ignored: Sequence[str] = ()
    approximated: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class TextRequest(ModelRequest):
    """The fields that chats and completions share."""

    stream: bool = False
    think: bool | str | None = None
    #: The dialect's default for thinking if neither the client nor the operator sets
    #: it; None: the model's.
    think_default: bool | None = None
    #: Omit thinking from the answer.
    exclude_reasoning: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    #: Number of answers to each prompt.
    n: int = 1


@dataclass(slots=True, kw_only=True)
class ChatRequest(TextRequest):
    """A request for the next message of a chat."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    #: "json" or a JSON Schema.
    format: str | Mapping[str, Json] | None = None
    #: If the model does not support thinking, the request is answered without
    #: it instead of refused.
    lenient_think: bool = False


@dataclass(slots=True, kw_only=True)
class GenerateRequest(TextRequest):
    """A request to complete a prompt."""

    prompt: str
    #: All prompts if there are several; `prompt` is the first.
    prompts: Sequence[str] = ()
    system: str | None = None
    suffix: str | None = None


@dataclass(slots=True, kw_only=True)
class EmbedRequest(ModelRequest):
    """A request for the vectors of texts."""

    input: Sequence[str]
    dimensions: int | None = None


@dataclass(slots=True, frozen=True)
class EmbedAnswer:
    """The vectors of a request for embeddings."""

    #: One vector per input, in the order of the inputs.
    embeddings: Sequence[Sequence[float]]
    #: Tokens of all inputs.
    prompt_eval_count: int
    #: Some inputs were too long, and were truncated.
    truncated: bool = False
    #: See Done.
    metrics: Mapping[str, Json] = field(default_factory=dict, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class Model:
    """One model as a list shows it; `modified_at` in whole seconds since 1970."""

    name: str
    modified_at: int
    owned_by: str
    #: As Ollama names them ("completion", "tools", "vision", "thinking", "embedding",
    #: "insert"); None: unknown.
    capabilities: frozenset[str] | None = None
    #: In tokens; None: unknown.
    context_length: int | None = None
    #: The entry in Ollama's own list.
    row: Mapping[str, Json] | None = None
    #: How many numbers its vectors have; None: unknown.
    embedding_length: int | None = None


@dataclass(slots=True, frozen=True)
class Thinking:
    """A piece of the model's thinking."""

    text: str
    logprobs: Logprobs = ()


@dataclass(slots=True, frozen=True)
class Content:
    """A piece of the answer's text."""

    text: str
    logprobs: Logprobs = ()


@dataclass(slots=True, frozen=True)
class Usage:
    """The token counts of an answer; None: the upstream did not report it."""

    #: The whole prompt, including cached tokens.
    prompt: int | None = None
    completion: int | None = None
    #: Tokens of the prompt that were read from the upstream's cache, and written to it.
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
    """The model has finished; always the last event. Counts are tokens, 0 if the
    upstream did not report them."""

    done_reason: str
    prompt_eval_count: int = 0
    eval_count: int = 0
    #: The context was exceeded, so the answer was continued without the oldest tokens.
    outgrown: bool = False
    #: See Usage.
    cached: int | None = None
    cache_written: int | None = None
    #: What the upstream measured besides, by Ollama's names: durations in nanoseconds.
    metrics: Mapping[str, Json] = field(default_factory=dict, compare=False, repr=False)

    @property
    def usage(self) -> Usage:
        """The token counts."""
        return Usage(self.prompt_eval_count, self.eval_count, self.cached, self.cache_written)


@dataclass(slots=True, frozen=True)
class Choice:
    """The next events belong to the answer with this index. Only sent if several
    answers were requested."""

    index: int


@dataclass(slots=True, frozen=True)
class Truncated:
    """The prompt was too long, and its oldest parts were left out; always the first event."""


@dataclass(slots=True, frozen=True)
class Approximated:
    """A field of the request that this answer does not follow strictly; always the
    first event of its batch."""

    field: str


Event = Thinking | Content | ToolCall | Done | Choice | Truncated | Approximated


@dataclass(slots=True)
class Answer:
    """A whole answer, collected from its events."""

    content: str
    thinking: str
    tool_calls: list[ToolCall]
    #: Of the content.
    logprobs: list[Mapping[str, Json]]
    done: Done


#: In place of the end that an answer must have.
_NOT_DONE = Done("")


def collect(events: Iterable[Event]) -> list[Answer]:
    """The whole answers of a stream of `events`, by index: one, unless several were requested. Each
    must end with `Done`."""
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
    calls: list[ToolCall] = []
    logprobs: list[Mapping[str, Json]] = []
    done = _NOT_DONE
    for event in events:
        match event:
            case Content():
                content.append(event.text)
                logprobs += event.logprobs
            case Thinking():
                thinking.append(event.text)
            case ToolCall():
                calls.append(event)
            case Done():
                done = event
    return Answer("".join(content), "".join(thinking), calls, logprobs, done)
