"""Hub requests to the bodies of OpenAI's API, by the profile of a provider, and vectors back. Pure.

Fields that the client left out are left out: the provider's own defaults apply.
"""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections.abc import Mapping, Sequence
from math import hypot
from operator import itemgetter

import orjson

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    Json,
    Message,
    ModelRequest,
    TextRequest,
)
from ollama_proxy.settings import EFFORT, ENABLED, NO_SWITCH, REASONING, TEMPLATE, TYPED, Profile
from ollama_proxy.upstreams.call import pace
from ollama_proxy.upstreams.ollama.codec import count, drop_none
from ollama_proxy.upstreams.openai.messages import FindThought, encode_messages

#: Ollama's options that OpenAI has under the same names.
_SAMPLING = {
    name: name for name in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
}

#: Fields of OpenAI's API that the hub has no name for.
OPENAI_FIELDS = frozenset(
    (
        "logit_bias metadata moderation prediction prompt_cache_key prompt_cache_options "
        "prompt_cache_retention safety_identifier service_tier store verbosity"
    ).split()
)

#: Values that only Anthropic has for the same name.
_FOREIGN: Mapping[str, tuple[Json, ...]] = {"service_tier": ("standard_only",)}

#: Instructions for a model whose provider has no parameter for a schema, or requires the
#: word JSON in the prompt.
MATCH_SCHEMA = "Answer with one JSON value that matches this JSON Schema, and nothing else:\n"
IN_JSON = "Answer in JSON."


def encode_chat(
    request: ChatRequest, profile: Profile, *, stream: bool, find: FindThought | None = None
) -> dict[str, Json]:
    """The body of POST /chat/completions; `stream`: whether to stream the answer, whatever the
    client requested. Raises BadRequest for a history that can't be sent."""
    messages = _add_instruction(request, profile)
    body: dict[str, Json] = {
        "model": request.model,
        "messages": encode_messages(
            messages, profile, thinks=request.think is not False, find=find
        ),
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {**tool.passthrough_fields, "name": tool.name}
                | drop_none(
                    {
                        "description": tool.description,
                        "parameters": tool.parameters,
                        "strict": tool.strict,
                    }
                ),
            }
            for tool in pace(request.tools)
        ]
        choice: Json = request.tool_choice
        if isinstance(choice, Mapping):
            choice = {"type": "function", "function": dict(choice)}
        body |= drop_none(
            {"tool_choice": choice, "parallel_tool_calls": request.parallel_tool_calls}
        )
    if request.format and isinstance(request.format, Mapping) and profile.json_schema:
        asked = (request.passthrough_fields.get("response_format") or {}).get("json_schema") or {}
        details = {
            name: asked[name]
            for name in ("name", "description", "strict")
            if asked.get(name) is not None
        }
        schema = {"name": "schema"} | details | {"schema": request.format}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.format:
        body["response_format"] = {"type": "json_object"}
    if request.logprobs:
        body |= drop_none({"logprobs": True, "top_logprobs": request.top_logprobs})
    return (
        body
        | _encode_parameters(request, profile, stream=stream)
        | _encode_thinking(request, profile)
    )


def encode_generate(request: GenerateRequest, profile: Profile, *, stream: bool) -> dict[str, Json]:
    """The body of POST /completions, for a plain prompt or one with a suffix."""
    body: dict[str, Json] = {"model": request.model, "prompt": request.prompt}
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    body |= drop_none({"suffix": request.suffix or None, "logprobs": logprobs})
    return body | _encode_parameters(request, profile, stream=stream, limit="max_tokens")


def select_passthrough(request: ModelRequest, profile: Profile) -> dict[str, Json]:
    """The fields without an equivalent in the hub that the provider knows."""
    return {
        name: value
        for name, value in request.passthrough_fields.items()
        if (name in OPENAI_FIELDS or name in profile.fields) and value not in _FOREIGN.get(name, ())
    }


def _encode_parameters(
    request: TextRequest, profile: Profile, *, stream: bool, limit: str = ""
) -> dict[str, Json]:
    options = request.options
    names = {**_SAMPLING, **profile.options}
    body = {field: options[name] for name, field in names.items() if options.get(name) is not None}
    most, stop = options.get("num_predict"), options.get("stop")
    # To Ollama 0 and less mean no limit.
    if isinstance(most, int | float) and most > 0:
        body[limit or profile.limit_field] = int(most)
    if stop := [stop] if isinstance(stop, str) else [text for text in stop or () if text != ""]:
        body["stop"] = stop
    body |= (
        drop_none({"user": request.user})
        | select_passthrough(request, profile)
        | {"stream": stream}
    )
    return body | (
        {"stream_options": {"include_usage": True}} if stream and profile.stream_options else {}
    )


# Answers in JSON.


def is_put_in_words(request: ChatRequest, profile: Profile) -> bool:
    """Whether the provider has no parameter for the schema of a request, so that the
    prompt has to ask for it."""
    return isinstance(request.format, Mapping) and not profile.json_schema


def _add_instruction(request: ChatRequest, profile: Profile) -> Sequence[Message]:
    """The messages; the first system message asks for the format that the provider
    has no parameter for."""
    order = ""
    if is_put_in_words(request, profile):
        order = MATCH_SCHEMA + orjson.dumps(request.format).decode()
    elif (
        request.format
        and profile.json_word
        and not any("json" in each.content.lower() for each in request.messages)
    ):
        order = IN_JSON
    if not order:
        return request.messages
    first = next(
        (number for number, each in enumerate(request.messages) if each.role == "system"), None
    )
    if first is None:
        return [Message("system", order), *request.messages]
    said = request.messages[first]
    told = Message(
        "system",
        f"{said.content}\n\n{order}" if said.content else order,
        attachments=said.attachments,
    )
    return [*request.messages[:first], told, *request.messages[first + 1 :]]


# Thinking.


def _encode_thinking(request: TextRequest, profile: Profile) -> dict[str, Json]:
    """The provider's switch, if the client has asked for thinking or against it;
    otherwise the model decides."""
    if request.think is None:
        return {}
    # The level in the terms of profiles, and in those of the provider; "" if it has no such level.
    named = isinstance(request.think, str)
    level = str(request.think) if named else "default" if request.think else "none"
    word = profile.efforts.get(level, level if named else "")
    effort, on = ({EFFORT: word} if word else {}), bool(request.think)
    switches: dict[str, dict[str, Json]] = {
        NO_SWITCH: {},
        EFFORT: effort,
        TYPED: {TYPED: {"type": "enabled" if on else "disabled"}} | effort,
        ENABLED: {ENABLED: on} | drop_none({"thinking_budget": profile.budgets.get(level)}),
        REASONING: {REASONING: {"effort": word} if word else {"enabled": on}},
        TEMPLATE: {
            TEMPLATE: {"enable_thinking": on} | (request.passthrough_fields.get(TEMPLATE) or {})
        }
        | effort,
    }
    return switches[profile.thinking]


# Vectors.


def encode_embed(request: EmbedRequest, texts: Sequence[str], profile: Profile) -> dict[str, Json]:
    """The body of POST /embeddings for some of the texts of a request."""
    body: dict[str, Json] = {
        "model": request.model,
        "input": list(texts),
        "encoding_format": "float",
    }
    dimensions = request.dimensions if profile.dimensions else None
    return (
        body
        | drop_none({"dimensions": dimensions, "user": request.user})
        | select_passthrough(request, profile)
    )


def decode_embed(document: Mapping[str, Json], wanted: int) -> tuple[list[Sequence[float]], int]:
    """The vectors in the order of their texts, and the number of tokens read; raises UpstreamError
    unless there are `wanted` vectors."""
    rows, usage = document.get("data"), document.get("usage")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UpstreamError(detail="embeddings are missing")
    if len(rows) != wanted:
        raise UpstreamError(detail=f"{len(rows)} embeddings for {wanted} texts")
    # Some number every row 0: then the rows are in order.
    numbers = [row.get("index") for row in rows]
    if set(map(type, numbers)) == {int} and len(set(numbers)) == len(rows):
        rows = sorted(rows, key=itemgetter("index"))
    usage = usage if isinstance(usage, dict) else {}
    read = count(usage.get("prompt_tokens") or usage.get("total_tokens"))
    return [_decode_vector(row.get("embedding")) for row in rows], read


def _decode_vector(value: Json) -> Sequence[float]:
    """A list of numbers, also from base64, which some send although numbers were requested."""
    try:
        if isinstance(value, str):
            numbers = array("f")
            numbers.frombytes(b64decode(value, validate=True))
            value = numbers.tolist()
        if isinstance(value, list) and array("f", value):
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    raise UpstreamError(detail="embeddings are not lists of numbers")


def shorten(vector: Sequence[float], dimensions: int) -> Sequence[float]:
    """The first numbers of a vector, normalised to length 1."""
    if len(vector) <= dimensions:
        return vector
    cut = vector[:dimensions]
    length = hypot(*cut)
    return [number / length for number in cut] if length else cut
