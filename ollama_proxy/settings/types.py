"""The types of settings: each parses an entry into a typed value, and has a label for the
documentation and for errors.

The basic types and their combinations are here; `formats` has those with a notation of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Generic, TypeVar

from ollama_proxy.settings.yaml_file import Complaints, Entry

T = TypeVar("T")

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SettingType(Generic[T]):
    """The type of a setting: a label for the documentation and for errors, and the parser."""

    label: str
    parse: Callable[[Entry], T]
    #: Its own environment variable has plain text instead of a YAML value.
    raw: bool = False


def check_kind(entry: Entry, label: str, *kinds: str) -> None:
    """Raise ConfigError unless the entry has one of these types in YAML; the error
    says how to correct it."""
    if entry.kind in kinds:
        return
    if entry.kind == "null":
        raise entry.error("is empty: write a value or remove the line")
    if "str" in kinds and entry.kind not in ("seq", "map"):
        raise entry.error("must be text: put quotes around it")
    if entry.kind == "str":
        raise entry.error(f"must be {label}, without quotes")
    raise entry.error(f"must be {label}")


def text_type(
    label: str, pattern: str = r"\S|\S[^\x00-\x1f\x7f]*\S", *, raw: bool = True
) -> SettingType[str]:
    """Text on one line that matches `pattern` as a whole."""

    def parse(entry: Entry) -> str:
        """The text as written."""
        check_kind(entry, "text", "str")
        if not re.fullmatch(pattern, entry.text):
            raise entry.error(f"must be {label}")
        return entry.text

    return SettingType(label, parse, raw)


TEXT = text_type("one line of text")


def _parse_boolean(entry: Entry) -> bool:
    check_kind(entry, "true or false", "bool")
    return entry.text.lower() in ("true", "yes", "on")


BOOLEAN = SettingType("true or false", _parse_boolean)


def whole(low: int, high: int) -> SettingType[int]:
    """Plain decimal digits between `low` and `high`; octal, hexadecimal and `12:30` are refused."""
    label = f"a whole number from {low} to {high}"

    def parse(entry: Entry) -> int:
        """The number."""
        check_kind(entry, label, "int")
        if (
            not _WHOLE.fullmatch(entry.text)
            or len(entry.text) > 20
            or not low <= int(entry.text) <= high
        ):
            raise entry.error(f"must be {label}")
        return int(entry.text)

    return SettingType(label, parse)


def seconds(high: float = 1_000_000.0) -> SettingType[float]:
    """More than 0 seconds, decimals allowed."""
    return _decimal(f"seconds, more than 0 and at most {high:.0f}", lambda value: 0 < value <= high)


def number(low: float, high: float) -> SettingType[float]:
    """A number between `low` and `high`, decimals allowed."""
    return _decimal(f"a number from {low:g} to {high:.0f}", lambda value: low <= value <= high)


def _decimal(label: str, fits: Callable[[float], bool]) -> SettingType[float]:
    def parse(entry: Entry) -> float:
        """The number."""
        check_kind(entry, label, "int", "float")
        if not _NUMBER.fullmatch(entry.text) or not fits(float(entry.text)):
            raise entry.error(f"must be {label}")
        return float(entry.text)

    return SettingType(label, parse)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`, did you mean "..."?` when one of the known names is close or ends with
    `.name`, else nothing."""
    names = list(known)
    close = [each for each in names if each.endswith(f".{name}")] or get_close_matches(
        name, names, n=1
    )
    return f', did you mean "{close[0]}"?' if close else ""


def choice(*names: str) -> SettingType[str]:
    """One of `names`, in any case. YAML reads a plain `off` as false, so false is the choice
    `off` if there is one."""
    label = "one of " + ", ".join(names)
    folded = {name.lower(): name for name in names}

    def parse(entry: Entry) -> str:
        """The name as declared."""
        if entry.kind == "bool" and "off" in folded and not _parse_boolean(entry):
            return folded["off"]
        check_kind(entry, label, "str")
        found = folded.get(entry.text.lower())
        if found is None:
            raise entry.error(f"must be {label}{suggestion(entry.text.lower(), folded)}")
        return found

    return SettingType(label, parse, raw=True)


def optional(kind: SettingType[T]) -> SettingType[T | None]:
    """The same, or null for "not set"."""
    return SettingType(
        f"{kind.label}, or null",
        lambda entry: None if entry.kind == "null" else kind.parse(entry),
        kind.raw,
    )


def list_of(kind: SettingType[T], *, if_empty: str = "") -> SettingType[tuple[T, ...]]:
    """A YAML list with items of one type; one error lists all invalid items. `if_empty`: what to do
    instead of writing an empty list, which is then refused."""
    label = f"a list, each {kind.label}"

    def parse(entry: Entry) -> tuple[T, ...]:
        """All items, in their order."""
        check_kind(entry, "a list: [first, second]", "seq")
        if if_empty and not entry.items:
            raise entry.error(f"is an empty list: {if_empty}")
        complaints, values = Complaints(), []
        for item in entry.items:
            with complaints.collected():
                values.append(kind.parse(item))
        complaints.check()
        return tuple(values)

    return SettingType(label, parse)


def map_of(kind: SettingType[T]) -> SettingType[dict[str, T]]:
    """A YAML mapping with any names."""
    label = f"a mapping, each value {kind.label}"

    def parse(entry: Entry) -> dict[str, T]:
        """Each value by its name."""
        check_kind(entry, "a mapping of names to values", "map")
        complaints, values = Complaints(), {}
        for name, item in entry.entries.items():
            with complaints.collected():
                values[TEXT.parse(Entry(item.where, f"the name of {item.name}", "str", name))] = (
                    kind.parse(item)
                )
        complaints.check()
        return values

    return SettingType(label, parse)


def _parse_number(entry: Entry) -> int | float:
    if _WHOLE.fullmatch(entry.text) and len(entry.text) <= 20:
        return int(entry.text)
    # Octal numbers, 12:30:45, infinity and "not a number" are refused.
    try:
        number = float(entry.text) if re.match(r"-?(0\.|[1-9]|0$)[^_]*$", entry.text) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise entry.error("must be a plain decimal number; put quotes around text")
    return number


_ANY_TEXT = text_type("text", r"(?s).*")
#: By the type of an entry in YAML.
_PARSERS: Mapping[str, Callable[[Entry], object]] = {
    "int": _parse_number,
    "float": _parse_number,
    "bool": _parse_boolean,
    "seq": lambda entry: list(list_of(ANYTHING).parse(entry)),
    "map": lambda entry: map_of(ANYTHING).parse(entry),
    "null": lambda entry: None,
}
#: A JSON value.
ANYTHING: SettingType[object] = SettingType(
    "any value", lambda entry: _PARSERS.get(entry.kind, _ANY_TEXT.parse)(entry)
)
