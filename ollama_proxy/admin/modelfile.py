"""Modelfiles, as people write them for `ollama create`, to the fields that Ollama's API
takes in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json
from ollama_proxy.settings import OPTION_TYPES
from ollama_proxy.texts import Translatable

#: Instructions with one text each, and its field.
_TEXTS = {
    "from": "from",
    "template": "template",
    "system": "system",
    "renderer": "renderer",
    "parser": "parser",
    "requires": "requires",
}

_LINE = re.compile(r"(?P<name>[A-Za-z]+)[ \t]+(?P<rest>.*)", re.DOTALL)
_QUOTES = '"""'
_ROLES = ("system", "user", "assistant")

#: A file of the author's own machine, which would have to be uploaded.
_FILE = re.compile(r"(\.{0,2}/|~|[A-Za-z]:\\).*|.*\.(gguf|safetensors|bin)", re.IGNORECASE)


class Instruction(NamedTuple):
    """One instruction of a Modelfile."""

    line: int
    name: str
    value: str


def read_modelfile(text: str) -> dict[str, Json]:
    """The fields of a request to create this model, without its name. Raises BadRequest."""
    fields: dict[str, Any] = {}
    for instruction in split_instructions(text):
        if instruction.name in _TEXTS:
            fields[_TEXTS[instruction.name]] = instruction.value
        elif instruction.name == "parameter":
            _add_parameter(fields.setdefault("parameters", {}), instruction)
        elif instruction.name == "license":
            fields.setdefault("license", []).append(instruction.value)
        elif instruction.name == "message":
            role, _blank, content = instruction.value.partition(" ")
            if role not in _ROLES:
                raise _refusal(
                    instruction, Translatable("a message begins with system, user or assistant")
                )
            fields.setdefault("messages", []).append(
                {"role": role, "content": _unquoted(content.strip())}
            )
        elif instruction.name == "adapter":
            raise _refusal(
                instruction,
                Translatable("files can't be uploaded here; use the command ollama create"),
            )
        else:
            raise _refusal(instruction, Translatable("there is no such instruction"))
        if instruction.name == "from" and _FILE.fullmatch(instruction.value):
            raise _refusal(
                instruction,
                Translatable("files can't be uploaded here; use the command ollama create"),
            )
    if not fields.get("from"):
        raise BadRequest(
            Translatable("A Modelfile needs FROM and the name of a model."), param="modelfile"
        )
    return fields


def split_instructions(text: str) -> Iterator[Instruction]:
    """The instructions with their first lines. Raises BadRequest."""
    lines = iter(enumerate(text.replace("\r\n", "\n").split("\n"), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise _refusal(
                Instruction(number, line.strip()[:40], ""),
                Translatable("a name and a value are expected"),
            )
        begun = match["rest"].strip()
        name, value = match["name"].lower(), begun
        start = begun.find(_QUOTES)
        # A value in three quotes may have several lines; those of a message have its role in front.
        if start == 0 or (name == "message" and start > 0):
            inner, closed, _rest = begun[start + 3 :].partition(_QUOTES)
            while not closed:
                more = next(lines, None)
                if more is None:
                    raise _refusal(
                        Instruction(number, name, ""), Translatable('the closing """ is missing')
                    )
                piece, closed, _rest = more[1].partition(_QUOTES)
                inner += f"\n{piece}"
            value = begun[:start] + inner
        yield Instruction(number, name, value if start >= 0 else _unquoted(value))


def _unquoted(value: str) -> str:
    if len(value) >= 2 * len(_QUOTES) and value.startswith(_QUOTES) and value.endswith(_QUOTES):
        return value[len(_QUOTES) : -len(_QUOTES)]
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _add_parameter(parameters: dict[str, Json], instruction: Instruction) -> None:
    """A parameter that is given several times is a list."""
    name, _blank, rest = instruction.value.partition(" ")
    kind, text = OPTION_TYPES.get(name, str), _unquoted(rest.strip())
    if not text:
        raise _refusal(instruction, Translatable("a name and a value are expected"))
    if kind is list:
        parameters.setdefault(name, []).append(text)
        return
    try:
        parameters[name] = text.lower() == "true" if kind is bool else kind(text)
    except ValueError:
        raise _refusal(instruction, Translatable("%(name)s must be a number", name=name)) from None


def _refusal(instruction: Instruction, why: str) -> BadRequest:
    line, name = instruction.line, instruction.name.upper()[:40]
    text = Translatable("Line %(line)s, %(name)s: %(why)s.", line=line, name=name, why=why)
    return BadRequest(text, param="modelfile")
