"""Requests to the demo: Ollama's JSON to checked values, and Ollama's words for what is wrong with it. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import orjson

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json
from ollama_proxy.policy import keep_alive_s

T = TypeVar("T")

#: The one model, as lists show it, and its name in full.
MODEL = "demo:latest"
FULL_NAME = f"registry.ollama.ai/library/{MODEL}"

#: Tokens.
CONTEXT_LENGTH = 8192

_NAME = re.compile(r"(?:[\w.:-]+/){0,2}\w[\w.-]{0,79}(?::\w[\w.-]{0,79})?", re.ASCII)
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_LEVELS = ("high", "medium", "low", "max")
_LEVELS_TEXT = '"high", "medium", "low", "max", true, or false'
_GO_KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}

_OPTION_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    **dict.fromkeys(
        "num_ctx num_predict num_keep num_batch num_gpu main_gpu num_thread seed top_k repeat_last_n".split(),
        ("integer", (int, float)),
    ),
    **dict.fromkeys(
        "temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty".split(),
        ("float32", (int, float)),
    ),
    "use_mmap": ("boolean", (bool,)),
    "stop": ("array", (list,)),
}


class Refusal(Exception):
    """The demo says no, with this status and this text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(slots=True, frozen=True)
class Naming:
    """What a route says of a name that is missing, can't be one, or belongs to no model here."""

    missing: str = "model is required"
    missing_status: int = 400
    invalid: str = "invalid model name"
    unknown: str = "model '{}' not found"

    def check(self, name: str) -> None:
        """Raises Refusal unless `name` is a spelling of the demo model."""
        self.check_form(name)
        if not is_demo(name):
            raise Refusal(404, self.unknown.format(name))

    def check_form(self, name: str) -> None:
        """Raises Refusal for what can't be the name of any model."""
        if not name:
            raise Refusal(self.missing_status, self.missing)
        if not is_name(name):
            raise Refusal(400, self.invalid.format(name))


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text.strip()) is not None


def is_demo(name: str) -> bool:
    """Whether `name` is one of the spellings that Ollama would take for the demo model."""
    plain = name.strip().lower()
    return plain.removeprefix("registry.ollama.ai/").removeprefix("library/").removesuffix(":latest") == "demo"


def load_object(body: bytes) -> dict[str, Json]:
    """The JSON object at the start of `body`, without its nulls: to Ollama null means absent. Raises Refusal."""
    if not body.strip():
        raise Refusal(400, "missing request body")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _load_leniently(body.decode("utf-8", "replace").lstrip())
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Refusal(400, f"json: cannot unmarshal {_GO_KINDS[type(document)]} into Go value of type object")
    return {name: value for name, value in document.items() if value is not None}


def _load_leniently(text: str) -> Json:
    """What Go's decoder takes and a strict one does not: bytes behind the value, half of a surrogate pair."""
    try:
        document, _ = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text)
        return orjson.loads(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        cut = isinstance(error, json.JSONDecodeError) and (error.pos >= len(text) or "Unterminated" in error.msg)
        raise Refusal(400, "unexpected EOF" if cut else "invalid character in JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def field(data: Mapping[str, Json], name: str, default: T) -> T:
    """The value of `name`, which must have the type of `default`; raises Refusal."""
    value = data.get(name)
    if value is None:
        return default
    if type(value) is not type(default):
        wanted = _GO_KINDS[type(default)]
        found = _GO_KINDS[type(value)]
        raise Refusal(400, f"json: cannot unmarshal {found} into Go struct field {name} of type {wanted}")
    return value


def named_model(data: Mapping[str, Json]) -> str:
    """`model`, or the older `name` where that is missing or empty."""
    return field(data, "model", "") or field(data, "name", "")


@dataclass(slots=True, frozen=True)
class Asked:
    """A chat or a completion with its types checked; a completion is a chat of one message."""

    model: str
    messages: Sequence[Mapping[str, Json]]
    stream: bool
    #: Nothing to answer and `keep_alive` zero.
    is_unload: bool
    think: bool
    tools: Sequence[Mapping[str, Json]]
    format: Json
    options: Mapping[str, Json]
    #: Alternatives shown per token; None: no logprobs are wanted.
    top_logprobs: int | None

    def check_sampling(self) -> None:
        """What only the runner looks at, hence status 500; raises Refusal."""
        check_options(self.options)
        if not (self.format in ("", "json") or isinstance(self.format, dict)):
            quoted = orjson.dumps(orjson.dumps(self.format).decode()).decode()
            raise Refusal(500, f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')


def load_chat(data: Mapping[str, Json]) -> Asked:
    """The body of `/api/chat`; raises Refusal."""
    messages = field(data, "messages", list[Json]())
    for message in messages:
        _check_message(message)
    tools = field(data, "tools", list[Json]())
    for tool in tools:
        _check_tool(tool)
    return _load(data, messages, tools)


def load_generate(data: Mapping[str, Json]) -> Asked:
    """The body of `/api/generate`; raises Refusal."""
    message = {"role": "user", "content": field(data, "prompt", ""), "images": field(data, "images", list[Json]())}
    _check_images(message["images"])
    for name in ("suffix", "system", "template"):
        field(data, name, "")
    return _load(data, [message] if message["content"] else [], ())


def _load(data: Mapping[str, Json], messages: Sequence[Json], tools: Sequence[Json]) -> Asked:
    top = field(data, "top_logprobs", 0)
    asked = Asked(
        model=field(data, "model", ""),
        messages=messages,
        stream=field(data, "stream", True),
        is_unload=is_zero_lease(data.get("keep_alive")),
        think=_is_thinking(data.get("think", False)),
        tools=tools,
        format=data.get("format", ""),
        options=field(data, "options", dict[str, Json]()),
        top_logprobs=top if field(data, "logprobs", False) else None,
    )
    if not 0 <= top <= 20:
        raise Refusal(400, "top_logprobs must be between 0 and 20")
    return asked


def _is_thinking(think: Json) -> bool:
    if isinstance(think, bool):
        return think
    if not isinstance(think, str):
        raise Refusal(400, f"think must be a boolean or string ({_LEVELS_TEXT})")
    if think not in _LEVELS:
        raise Refusal(400, f'invalid think value: "{think}" (must be {_LEVELS_TEXT})')
    return True


def is_zero_lease(keep_alive: Json) -> bool:
    """Whether the model shall go at once; raises Refusal for what is neither seconds nor a Go duration."""
    try:
        return keep_alive_s(keep_alive) == 0
    except BadRequest as error:
        raise Refusal(400, str(error)) from None


def check_options(options: Mapping[str, Json]) -> None:
    """Raises Refusal for a known option of the wrong type; unknown ones are ignored."""
    for name, value in options.items():
        known = _OPTION_TYPES.get(name)
        if known and value is not None and type(value) not in known[1]:
            raise Refusal(500, f'option "{name}" must be of type {known[0]}')
    if not all(isinstance(text, str) for text in options.get("stop") or ()):
        raise Refusal(500, 'option "stop" must be of an array of strings')


def _check_object(value: Json, what: str) -> None:
    if not isinstance(value, dict):
        raise Refusal(400, f"json: cannot unmarshal {_GO_KINDS.get(type(value), 'null')} into Go struct field {what}")


def _check_message(message: Json) -> None:
    _check_object(message, "ChatRequest.messages of type api.Message")
    for name in ("role", "content", "thinking", "tool_name", "tool_call_id"):
        field(message, name, "")
    _check_images(field(message, "images", list[Json]()))
    for call in field(message, "tool_calls", list[Json]()):
        _check_object(call, "Message.tool_calls of type api.ToolCall")
        arguments = field(call, "function", dict[str, Json]()).get("arguments")
        _check_object({} if arguments is None else arguments, "ToolCallFunction.arguments of type object")


def _check_tool(tool: Json) -> None:
    _check_object(tool, "ChatRequest.tools of type api.Tool")
    function = field(tool, "function", dict[str, Json]())
    field(function, "name", "")
    for schema in field(field(function, "parameters", dict[str, Json]()), "properties", dict[str, Json]()).values():
        _check_object(schema, "ToolFunctionParameters.properties of type api.ToolProperty")


def _check_images(images: Sequence[Json]) -> None:
    for image in images:
        if not isinstance(image, str):
            raise Refusal(400, "json: cannot unmarshal into Go struct field images of type []uint8")
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            bad = _NOT_BASE64.search(image)
            raise Refusal(400, f"illegal base64 data at input byte {bad.start() if bad else len(image)}") from None
