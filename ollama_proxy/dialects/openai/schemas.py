"""Every field of OpenAI's requests and its fate: mapped to the hub, carried for upstreams that know it, or refused.

Fields that are in no schema are carried too. What was carried and had no effect is named in a response header.
Source: OpenAI's API description of August 2026, and the extensions that clients of Ollama send.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json

MAPPED, CARRIED, REFUSED = "mapped", "carried", "refused"


class Fated(fields.Field[Any]):
    """A field with its fate; null is the same as absent."""

    def __init__(self, fate: str, check: Callable[[Json], bool], expected: str) -> None:
        super().__init__(allow_none=True)
        self.fate = fate
        self._check = check
        self._expected = expected

    def _deserialize(self, value: Json, attr: str | None, data: Any, **kwargs: Any) -> Json:
        if not self._check(value):
            raise ValidationError(self._expected)
        return value


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Json) -> bool:
    # Beyond 64 bits no upstream could read it.
    return _is_number(value) and abs(value) < 2**63 and float(value).is_integer()


def number(fate: str = MAPPED) -> Fated:
    """A number that is not true or false."""
    return Fated(fate, _is_number, "must be a number")


def whole_number(fate: str = MAPPED) -> Fated:
    """A number without a fraction, also written 5.0."""
    return Fated(fate, _is_whole, "must be a whole number")


def flag(fate: str = MAPPED) -> Fated:
    """True or false."""
    return Fated(fate, lambda value: isinstance(value, bool), "must be true or false")


def text(fate: str = MAPPED) -> Fated:
    """A text."""
    return Fated(fate, lambda value: isinstance(value, str), "must be a text")


def mapping(fate: str = MAPPED) -> Fated:
    """An object."""
    return Fated(fate, lambda value: isinstance(value, dict), "must be an object")


def listing(fate: str = MAPPED) -> Fated:
    """A list."""
    return Fated(fate, lambda value: isinstance(value, list), "must be a list")


def anything(fate: str = MAPPED) -> Fated:
    """Any value: whoever reads it checks it."""
    return Fated(fate, lambda value: True, "")


def refused(why: str, *harmless: Json) -> Fated:
    """A field that can't be honoured, except with a value that asks for nothing special."""
    return Fated(REFUSED, lambda value: any(value == one and type(value) is type(one) for one in harmless), why)


def _is_stop(value: Json) -> bool:
    items = [value] if isinstance(value, str) else value
    return isinstance(items, list) and all(isinstance(item, str) for item in items)


class Sampling(Schema):
    """What chat and completions share."""

    class Meta:
        unknown = EXCLUDE

    model = text()
    stream = flag()
    stream_options = mapping()
    temperature = number()
    top_p = number()
    frequency_penalty = number()
    presence_penalty = number()
    max_tokens = whole_number()
    seed = whole_number()
    stop = Fated(MAPPED, _is_stop, "must be a text or a list of texts")
    user = text()
    logit_bias = mapping(CARRIED)
    n = refused("only one answer per request is supported: n must be 1", 1)
    # Extensions that clients of Ollama use.
    options = mapping()
    num_ctx = whole_number()
    top_k = whole_number()
    min_p = number()
    keep_alive = anything()
    _debug_render_only = refused("is not passed on", False)


class ChatSchema(Sampling):
    """POST /v1/chat/completions."""

    messages = listing()
    max_completion_tokens = whole_number()
    logprobs = flag()
    top_logprobs = whole_number()
    response_format = mapping()
    reasoning_effort = text()
    reasoning = mapping()
    think = anything()
    tools = listing()
    tool_choice = anything()
    parallel_tool_calls = flag()
    functions = refused("is not supported, use tools", [])
    function_call = refused("is not supported, use tool_choice", "none", "auto")
    audio = refused("spoken answers are not supported")
    modalities = refused("only text answers are supported", ["text"])
    web_search_options = refused("web search is not supported")
    metadata = anything(CARRIED)
    moderation = anything(CARRIED)
    prediction = anything(CARRIED)
    prompt_cache_key = anything(CARRIED)
    prompt_cache_options = anything(CARRIED)
    prompt_cache_retention = anything(CARRIED)
    safety_identifier = anything(CARRIED)
    service_tier = anything(CARRIED)
    store = anything(CARRIED)
    verbosity = anything(CARRIED)


class CompletionSchema(Sampling):
    """POST /v1/completions."""

    prompt = anything()
    suffix = text()
    logprobs = whole_number()
    best_of = refused("only one answer per request is supported: best_of must be 1", 1)
    echo = refused("echo is not supported", False)


def check_fields(schema: Schema, data: dict[str, Json]) -> None:
    """Raises BadRequest that names every field at fault."""
    complaints = _narrowed(type(schema), frozenset(data).intersection(schema.fields)).validate(data)
    if complaints:
        names = sorted(map(str, complaints))
        raise BadRequest("; ".join(f"{name}: {complaints[name][0]}" for name in names), param=names[0])


@lru_cache(maxsize=256)
def _narrowed(kind: type[Schema], names: frozenset[str]) -> Schema:
    """The schema of only the fields that are there: a client sends the same few of forty again and again."""
    return kind(only=names)


def carried(schema: Schema, data: dict[str, Json]) -> dict[str, Json]:
    """The fields that the hub has no name for, with values that ask for something."""
    known = schema.fields
    return {
        name: value
        for name, value in data.items()
        if value not in (None, [], {}) and (name not in known or getattr(known[name], "fate", MAPPED) == CARRIED)
    }


def as_object(value: Json, param: str) -> dict[str, Json]:
    """The value, if it is an object; raises BadRequest."""
    return value if isinstance(value, dict) else bad(param, "must be an object")


def as_text(value: Json, param: str) -> str:
    """The value, if it is a text; raises BadRequest."""
    return value if isinstance(value, str) else bad(param, "must be a text")


def bad(param: str, why: str) -> NoReturn:
    """Raises BadRequest that names the field."""
    raise BadRequest(f"{param}: {why}", param=param)
