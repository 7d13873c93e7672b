"""The form for an entry of `models`: its fields are part of the value, the rest of
which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from math import isfinite
from typing import Any, Literal, NamedTuple

from ollama_proxy.admin.pages.language import N_
from ollama_proxy.hub import Json
from ollama_proxy.settings import THINK_LEVELS


class FormField(NamedTuple):
    """A field of the form: its dotted place in the value, its title, and how its text is read."""

    name: str
    title: str
    kind: Literal["text", "number", "flag", "think", "lines"] = "text"
    hint: str = ""


IDENTITY = (
    FormField(
        "target",
        N_("Stands for"),
        hint=N_("Empty: the model of this name. With its box in front: box1:qwen3:8b."),
    ),
    FormField("hidden", N_("Omit it from lists; it can be used"), "flag"),
)
DEFAULTS = (
    FormField("think", N_("Thinking"), "think", N_("For requests that do not say it themselves.")),
    FormField("keep_alive", N_("Stays loaded for"), hint=N_("Such as 30m; -1: always.")),
    FormField("options.num_ctx", N_("Context, in tokens"), "number"),
    FormField("options.num_predict", N_("Longest answer, in tokens"), "number"),
    FormField("options.temperature", N_("Temperature"), "number"),
    FormField("options.top_p", "top_p", "number"),
    FormField("options.top_k", "top_k", "number"),
    FormField("options.min_p", "min_p", "number"),
    FormField("options.repeat_penalty", "repeat_penalty", "number"),
    FormField("options.seed", "seed", "number"),
    FormField("options.stop", N_("Stop at"), "lines", N_("One text on each line.")),
)
PINNING = (
    FormField("pin_options", N_("Requests can't change what the model is loaded with"), "flag"),
)
BOUNDS = (
    FormField("clamp.num_ctx", N_("Largest context, in tokens"), "number"),
    FormField("clamp.num_predict", N_("Longest answer, in tokens"), "number"),
    FormField("clamp.keep_alive", N_("Stays loaded for at most"), hint=N_("Such as 1h.")),
)
PRICES = (
    FormField("price.input", N_("Prompt"), "number"),
    FormField("price.cached_input", N_("Prompt from a cache"), "number"),
    FormField("price.output", N_("Answer"), "number"),
)
FIELDS = (*IDENTITY, *DEFAULTS, *PINNING, *BOUNDS, *PRICES)

#: What `think` may be, as the form writes it.
THINK_VALUES = ("true", "false", *THINK_LEVELS)


def fill_form(value: Mapping[str, Json]) -> dict[str, str]:
    """The texts of the form for a value, by the names of its fields."""
    texts: dict[str, str] = {}
    for each in FIELDS:
        found: Json = value
        for part in each.name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        texts[each.name] = _write(found)
    return texts


def read_form_value(form: Mapping[str, str], before: Mapping[str, Json]) -> dict[str, Json]:
    """The value that the form stands for. `before`: what the entry was; what the form has no fields
    for stays. Text in the field of a number stays as it is, for the settings to refuse."""
    value: dict[str, Any] = deepcopy(dict(before))
    for each in FIELDS:
        *parents, last = each.name.split(".")
        section = value
        for parent in parents:
            section = section.setdefault(parent, {})
        read = _read(each, form.get(each.name, ""))
        if read is None:
            section.pop(last, None)
        else:
            section[last] = read
    return {name: each for name, each in value.items() if each != {}}


def _write(value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(field: FormField, text: str) -> Json:
    text = text.replace("\r\n", "\n")
    if not text.strip():
        return None
    if field.kind == "lines":
        return [line for line in text.split("\n") if line]
    text = text.strip()
    if field.kind == "flag":
        return True
    if field.kind == "think":
        return {"true": True, "false": False}.get(text, text)
    return (
        read_number(text) if field.kind == "number" or field.name.endswith("keep_alive") else text
    )


def read_number(text: str) -> int | float | str:
    """The number that a text is; another text as it is."""
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        return number if isfinite(number) else text
    return text
