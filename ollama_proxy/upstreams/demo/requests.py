"""Requests to the demo: Ollama's JSON to checked values. A malformed one is a plain 400 in
Ollama's shape. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import orjson

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json
from ollama_proxy.policy import keep_alive_s
from ollama_proxy.settings import OPTION_TYPES, THINK_LEVELS

T = TypeVar("T")

#: The one model, as lists show it, and its name in full.
MODEL = "demo:latest"
FULL_NAME = f"registry.ollama.ai/library/{MODEL}"

#: Tokens.
CONTEXT_LENGTH = 8192

_NAME = re.compile(r"(?:[\w.:-]+/){0,2}\w[\w.-]{0,79}(?::\w[\w.-]{0,79})?", re.ASCII)
#: Of an option that is a number, any number is accepted.
_ACCEPTED: Mapping[type, tuple[type, ...]] = {int: (int, float), float: (int, float)}
_TYPES = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    list: "an array",
    dict: "an object",
}


@dataclass(eq=False)
class Refusal(Exception):
    """An answer other than 200, with this status and this text."""

    status: int
    text: str


def check_model(name: str) -> None:
    """Raises Refusal unless `name` is a spelling of the demo model."""
    check_name(name)
    if not is_demo(name):
        raise Refusal(404, f"model '{name}' not found")


def check_name(name: str) -> None:
    """Raises Refusal unless `name` is well-formed."""
    if not name:
        raise Refusal(400, "model is required")
    if not _NAME.fullmatch(name.strip()):
        raise Refusal(400, "invalid model name")


def is_demo(name: str) -> bool:
    """Whether `name` is one of the spellings that Ollama would accept for the demo model."""
    plain = name.strip().lower()
    return (
        plain.removeprefix("registry.ollama.ai/").removeprefix("library/").removesuffix(":latest")
        == "demo"
    )


def load_object(body: bytes) -> dict[str, Json]:
    """The JSON object in `body` without its nulls: to Ollama null means absent. Raises Refusal."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Refusal(400, "the body must be a JSON object")
    return {name: value for name, value in document.items() if value is not None}


def field(data: Mapping[str, Json], name: str, default: T) -> T:
    """The value of `name`, which must have the type of `default`; raises Refusal."""
    value = data.get(name)
    if value is None:
        return default
    if type(value) is not type(default):
        raise Refusal(400, f"{name} must be {_TYPES[type(default)]}")
    return value


def objects(data: Mapping[str, Json], name: str) -> list[dict[str, Json]]:
    """The value of `name`, which must be an array of objects; raises Refusal."""
    values = field(data, name, list[dict[str, Json]]())
    if not all(isinstance(value, dict) for value in values):
        raise Refusal(400, f"{name} must be an array of objects")
    return values


def named_model(data: Mapping[str, Json]) -> str:
    """`model`, or the older `name` if that is missing or empty."""
    return field(data, "model", "") or field(data, "name", "")


@dataclass(slots=True, frozen=True)
class Asked:
    """A chat or a completion with its types checked; a completion is a chat of one message."""

    model: str
    #: All have a content, which may be empty, and a role in lower case.
    messages: Sequence[Mapping[str, Json]]
    stream: bool
    #: Nothing to answer and `keep_alive` zero.
    is_unload: bool
    think: bool
    tools: Sequence[Mapping[str, Json]]
    format: Json
    options: Mapping[str, Json]
    #: Alternatives listed per token; None: no logprobs were requested.
    top_logprobs: int | None


def load_chat(data: Mapping[str, Json]) -> Asked:
    """The body of `/api/chat`; raises Refusal."""
    messages, tools = objects(data, "messages"), objects(data, "tools")
    for index, message in enumerate(messages):
        role, content = field(message, "role", "").lower(), field(message, "content", "")
        messages[index] = message | {"role": role, "content": content}
        _check_images(message)
    for tool in tools:
        field(field(tool, "function", dict[str, Json]()), "name", "")
    return _load(data, messages, tools)


def load_generate(data: Mapping[str, Json]) -> Asked:
    """The body of `/api/generate`; raises Refusal."""
    _check_images(data)
    message = {"role": "user", "content": field(data, "prompt", ""), "images": data.get("images")}
    return _load(data, [message] if message["content"] else [], ())


def _load(
    data: Mapping[str, Json],
    messages: Sequence[Mapping[str, Json]],
    tools: Sequence[Mapping[str, Json]],
) -> Asked:
    think, form, top = (
        data.get("think", False),
        data.get("format", ""),
        field(data, "top_logprobs", 0),
    )
    if not (isinstance(think, bool) or think in THINK_LEVELS):
        raise Refusal(400, f"think must be true, false, or one of {', '.join(THINK_LEVELS)}")
    if not (form in ("", "json") or isinstance(form, dict)):
        raise Refusal(400, 'format must be "json" or a JSON schema')
    if not 0 <= top <= 20:
        raise Refusal(400, "top_logprobs must be between 0 and 20")
    return Asked(
        model=field(data, "model", ""),
        messages=messages,
        stream=field(data, "stream", True),
        is_unload=is_zero_lease(data),
        think=bool(think),
        tools=tools,
        format=form,
        options=load_options(data),
        top_logprobs=top if field(data, "logprobs", False) else None,
    )


def is_zero_lease(data: Mapping[str, Json]) -> bool:
    """Whether `keep_alive` unloads the model at once; raises Refusal unless it is a duration."""
    try:
        return keep_alive_s(data.get("keep_alive")) == 0
    except BadRequest as error:
        raise Refusal(400, str(error)) from None


def load_options(data: Mapping[str, Json]) -> dict[str, Json]:
    """The options; raises Refusal for one that is known and has another type. Null means absent."""
    options = {
        name: value
        for name, value in field(data, "options", dict[str, Json]()).items()
        if value is not None
    }
    for name, value in options.items():
        wanted = OPTION_TYPES.get(name)
        if wanted and type(value) not in _ACCEPTED.get(wanted, (wanted,)):
            raise Refusal(400, f"the option {name} has the wrong type")
    if not all(isinstance(text, str) for text in options.get("stop", ())):
        raise Refusal(400, "the option stop must be an array of strings")
    return options


def _check_images(data: Mapping[str, Json]) -> None:
    for image in field(data, "images", list[Json]()):
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise Refusal(400, "images must be strings in base64") from None
