"""A configuration file becomes a tree of entries that know their line; kinds turn entries into typed values.

Strict on purpose: whatever YAML would read as something else than the person meant is refused, with file and line.
No complaint ever holds a value, because any value may be a token. Imports nothing of the package but its errors.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, dataclass, field, fields
from datetime import date
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import yaml

from ollama_proxy.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
#: Start of the environment variables that can give any setting.
PREFIX = "OLLAMA_PROXY__"
#: How complaints begin that are about a variable and not about a line.
VARIABLE_WORDS = "environment variable "

T = TypeVar("T")

_UTF8_MARK = b"\xef\xbb\xbf"
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One value as it was written, and where: `where` is `file:line` or the name of an environment variable."""

    where: str
    #: Dotted name of the setting, such as `server.port` or `upstreams[2].kind`; empty for the whole file.
    name: str
    #: What YAML takes it for: str, int, float, bool, null, timestamp, seq, map, ...
    kind: str
    #: Source text of a scalar. Not shown: it may be a token.
    text: str = field(default="", repr=False)
    items: tuple[Entry, ...] = ()
    entries: dict[str, Entry] = field(default_factory=dict)

    def error(self, problem: str) -> ConfigError:
        """A complaint about this entry; the text of the entry is not part of it."""
        return ConfigError([f"{self.where}: {self.name or 'the file'} {problem}"])


class Complaints:
    """Collects the complaints of several steps, so that one error lists them all."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Turn a ConfigError of the block into remembered lines."""
        try:
            yield
        except ConfigError as error:
            self.lines += error.complaints

    def check(self) -> None:
        """Raise one ConfigError if anything was collected."""
        if self.lines:
            raise ConfigError(self.lines)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What a setting may be: words for documentation and complaints, and the way to read it."""

    label: str
    parse: Callable[[Entry], T]
    #: An environment variable of its own gives the text as it is instead of a YAML value.
    raw: bool = False


def read_bytes(path: Path, shown: str) -> bytes:
    """Content of the file. Raises ConfigError when it is missing, no plain file, unreadable or over 1 MiB."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{shown}: is a directory, not a file")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{shown}: is not a plain file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{shown}: is larger than 1 MiB")
    return data


def parse_document(data: bytes, shown: str) -> Entry:
    """The file as a mapping; only comments make an empty mapping. Raises ConfigError with file and line."""
    text = _decoded(data, shown)
    node = _composed(text, lambda line: f"{shown}:{line}", shown)
    if node is None:
        return Entry(f"{shown}:1", "", "map")
    root = _entry(node, "", lambda line: f"{shown}:{line}")
    if root.kind != "map":
        raise ConfigError(f"{root.where}: the file must be made of settings, such as 'service:'")
    return root


def parse_value(text: str, where: str, name: str) -> Entry:
    """One YAML value from an environment variable, as strict as the file."""
    node = _composed(text, lambda _: where, where)
    if node is None:
        return Entry(where, name, "null")
    return _entry(node, name, lambda _: where)


def _decoded(data: bytes, shown: str) -> str:
    if data.startswith(_UTF8_MARK):
        raise ConfigError(f"{shown}:1: starts with a byte order mark; save the file as UTF-8 without BOM")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}:{line}: is not UTF-8 text") from None
    if not text.strip():
        raise ConfigError(f"{shown}:1: the file is empty; write at least one setting or remove it")
    return text


class _Refused(Exception):
    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.mark = mark


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes without aliases, anchors, tags, repeated keys and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused("anchors and aliases (& and *) are not supported; put quotes around text", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _Refused("tags (!) are not supported; put quotes around text", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _Refused("is nested too deeply", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        seen: dict[str, int] = {}
        for key, _ in node.value:
            self._check_key(key, seen)
        return node

    @staticmethod
    def _check_key(key: yaml.Node, seen: dict[str, int]) -> None:
        """Raise for a key that is repeated or that YAML takes for something else than text. Keys may be secret too."""
        if _kind(key) != "str":
            raise _Refused("a name is not text: put quotes around it", key.start_mark)
        if key.value in seen:
            raise _Refused(f"the same name is already on line {seen[key.value]}", key.start_mark)
        seen[key.value] = key.start_mark.line + 1


def _composed(text: str, locate: Callable[[int], str], shown: str) -> yaml.Node | None:
    """The node tree of `text`. PyYAML's own messages are not passed on whole: they quote the source."""
    try:
        loader = _StrictLoader(text)
        return loader.get_single_node()
    except _Refused as error:
        raise ConfigError(f"{_at(error.mark, locate, shown)}: {error.problem}") from error
    except yaml.MarkedYAMLError as error:
        where = _at(error.problem_mark or error.context_mark, locate, shown)
        problem = re.sub(r"'[^'<]{2,}'", "'...'", error.problem or "")
        raise ConfigError(f"{where}: is not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise ConfigError(f"{locate(line)}: holds a character that is not allowed") from None


def _at(mark: yaml.Mark | None, locate: Callable[[int], str], shown: str) -> str:
    return shown if mark is None else locate(mark.line + 1)


def _kind(node: yaml.Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _entry(node: yaml.Node, name: str, locate: Callable[[int], str]) -> Entry:
    where = locate(node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return Entry(where, name, _kind(node), node.value)
    if isinstance(node, yaml.SequenceNode):
        items = (_entry(item, f"{name}[{index}]", locate) for index, item in enumerate(node.value, 1))
        return Entry(where, name, "seq", items=tuple(items))
    prefix = f"{name}." if name else ""
    entries = {key.value: _entry(value, prefix + key.value, locate) for key, value in node.value}
    return Entry(where, name, "map", entries=entries)


def check_kind(entry: Entry, label: str, *kinds: str) -> None:
    """Raise unless YAML takes the entry for one of `kinds`; the complaint says how to mend it."""
    if entry.kind in kinds:
        return
    if entry.kind == "null":
        raise entry.error("is empty: write a value or remove the line")
    if "str" in kinds and entry.kind not in ("seq", "map"):
        raise entry.error("must be text: put quotes around it")
    if entry.kind == "str":
        raise entry.error(f"must be {label}, without quotes")
    raise entry.error(f"must be {label}")


def text_kind(label: str, pattern: str = r"\S|\S[^\x00-\x1f\x7f]*\S", *, raw: bool = True) -> Kind[str]:
    """Text on one line that matches `pattern` as a whole."""
    compiled = re.compile(pattern)

    def parse(entry: Entry) -> str:
        check_kind(entry, "text", "str")
        if not compiled.fullmatch(entry.text):
            raise entry.error(f"must be {label}")
        return entry.text

    return Kind(label, parse, raw)


TEXT = text_kind("one line of text")


def _boolean(entry: Entry) -> bool:
    check_kind(entry, "true or false", "bool")
    return entry.text.lower() in ("true", "yes", "on")


BOOLEAN = Kind("true or false", _boolean)


def whole(low: int, high: int) -> Kind[int]:
    """Plain decimal digits between `low` and `high`; octal, hexadecimal and `12:30` are refused."""
    label = f"a whole number from {low} to {high}"

    def parse(entry: Entry) -> int:
        check_kind(entry, label, "int")
        if not _WHOLE.fullmatch(entry.text) or len(entry.text) > 20 or not low <= int(entry.text) <= high:
            raise entry.error(f"must be {label}")
        return int(entry.text)

    return Kind(label, parse)


def seconds(high: float = 1_000_000.0) -> Kind[float]:
    """More than 0 seconds, decimals allowed."""
    label = f"seconds, more than 0 and at most {high:.0f}"

    def parse(entry: Entry) -> float:
        check_kind(entry, label, "int", "float")
        if not _NUMBER.fullmatch(entry.text) or not 0 < float(entry.text) <= high:
            raise entry.error(f"must be {label}")
        return float(entry.text)

    return Kind(label, parse)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`, did you mean "..."?` when one of the known names is close or ends with `.name`, else nothing."""
    names = list(known)
    close = [each for each in names if each.endswith(f".{name}")] or get_close_matches(name, names, n=1)
    return f', did you mean "{close[0]}"?' if close else ""


def choice(*names: str) -> Kind[str]:
    """One of `names`, in any case."""
    label = "one of " + ", ".join(names)
    folded = {name.lower(): name for name in names}

    def parse(entry: Entry) -> str:
        check_kind(entry, label, "str")
        found = folded.get(entry.text.lower())
        if found is None:
            raise entry.error(f"must be {label}{suggestion(entry.text.lower(), folded)}")
        return found

    return Kind(label, parse, raw=True)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same, or null for "not set"."""
    return Kind(f"{kind.label}, or null", lambda entry: None if entry.kind == "null" else kind.parse(entry), kind.raw)


def list_of(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """A YAML list, each item of the kind; all bad items are complained about at once."""
    label = f"a list, each {kind.label}"

    def parse(entry: Entry) -> tuple[T, ...]:
        check_kind(entry, "a list: [first, second]", "seq")
        complaints, values = Complaints(), []
        for item in entry.items:
            with complaints.collected():
                values.append(kind.parse(item))
        complaints.check()
        return tuple(values)

    return Kind(label, parse)


def map_of(kind: Kind[T]) -> Kind[dict[str, T]]:
    """A YAML mapping with free names."""
    label = f"a mapping, each value {kind.label}"

    def parse(entry: Entry) -> dict[str, T]:
        check_kind(entry, "a mapping of names to values", "map")
        complaints, values = Complaints(), {}
        for name, item in entry.entries.items():
            with complaints.collected():
                values[TEXT.parse(Entry(item.where, f"the name of {item.name}", "str", name))] = kind.parse(item)
        complaints.check()
        return values

    return Kind(label, parse)


def _plain_number(entry: Entry) -> int | float:
    if _WHOLE.fullmatch(entry.text) and len(entry.text) <= 20:
        return int(entry.text)
    try:
        number = float(entry.text) if "_" not in entry.text else float("nan")
    except ValueError:
        number = float("nan")
    # Neither octal nor 12:30:45 nor infinity nor "not a number" can be meant.
    if not re.match(r"-?(0\.|[1-9]|0$)", entry.text) or abs(number) == float("inf") or number != number:
        raise entry.error("must be a plain decimal number; put quotes around text")
    return number


def _plain(entry: Entry) -> object:
    """The entry as JSON would hold it."""
    if entry.kind in ("int", "float"):
        return _plain_number(entry)
    if entry.kind == "bool":
        return _boolean(entry)
    if entry.kind == "seq":
        return list(list_of(ANYTHING).parse(entry))
    if entry.kind == "map":
        return map_of(ANYTHING).parse(entry)
    if entry.kind == "null":
        return None
    check_kind(entry, "text", "str")
    return entry.text


ANYTHING: Kind[object] = Kind("any value", _plain)


def _size(entry: Entry) -> int:
    factors = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    check_kind(entry, SIZE.label, "str", "int")
    match = re.fullmatch(r"([1-9][0-9]{0,11}) ?([kKMG]i?B)?", entry.text, re.ASCII)
    unit = (match and match[2]) or ""
    if not match or unit not in factors:
        raise entry.error(f"must be {SIZE.label}")
    return int(match[1]) * factors[unit]


def _network(entry: Entry) -> str:
    check_kind(entry, "text", "str")
    try:
        ip_network(entry.text, strict=False)
    except ValueError:
        raise entry.error(f"must be {NETWORK.label}") from None
    return entry.text


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = re.fullmatch(r"https?://[!-~]+", text, re.ASCII) and not re.search(r"[?#@\\]", text)
    return bool(plain and parts.hostname and port != 0)


def _base_url(entry: Entry) -> str:
    check_kind(entry, "text", "str")
    if not _is_base_url(entry.text):
        raise entry.error(f"must be {BASE_URL.label}")
    return entry.text.rstrip("/")


_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|ms|s|m|h)", re.ASCII)
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(value: str | float) -> float:
    """Seconds that a `keep_alive` means: a number, or text such as `1h30m`; below 0 is for ever (infinite).

    Raises ValueError for text that Ollama would refuse, such as `10` without a unit.
    """
    if isinstance(value, str):
        text = value.removeprefix("-")
        if text != "0" and not re.fullmatch(f"(?:{_DURATION_PART.pattern})+", text, re.ASCII):
            raise ValueError("not a duration")
        amount = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))
        value = -amount if value.startswith("-") else amount
    return float("inf") if value < 0 else float(value)


def _keep_alive(entry: Entry) -> str | int | float:
    value = ANYTHING.parse(entry)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise entry.error(f"must be {KEEP_ALIVE.label}")
    try:
        duration_s(value)
    except ValueError:
        raise entry.error(f"must be {KEEP_ALIVE.label}") from None
    return value


def _keep_alive_limit(entry: Entry) -> float:
    limit = duration_s(_keep_alive(entry))
    if limit == float("inf"):
        raise entry.error("must not be negative: that means for ever, which is no limit")
    return limit


def _day(entry: Entry) -> date:
    check_kind(entry, DAY.label, "timestamp", "str")
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", entry.text, re.ASCII):
        raise entry.error(f"must be {DAY.label}")
    try:
        return date.fromisoformat(entry.text)
    except ValueError:
        raise entry.error(f"must be {DAY.label}") from None


SECONDS = seconds()
SIZE = Kind("a size in bytes, such as 64MiB", _size)
HOST = text_kind("a host name or an IP address", r"[A-Za-z0-9._:%-]{1,255}")
NETWORK = Kind("an IP address or a network such as 10.0.0.0/8", _network)
BASE_URL = Kind("http://host[:port][/path] or https, without user, query and fragment", _base_url, raw=True)
KEEP_ALIVE = Kind("a duration such as 30m, or a number of seconds (below 0: for ever)", _keep_alive)
KEEP_ALIVE_LIMIT = Kind("a duration such as 1h", _keep_alive_limit)
DAY = Kind("a date such as 2027-01-31", _day)
NAME = text_kind("a name of at most 64 letters, digits, dots, dashes and underscores", r"[A-Za-z0-9._-]{1,64}")
VARIABLE = text_kind("the name of an environment variable, not the key itself", r"[A-Za-z_][A-Za-z0-9_]*")


def setting(default: T, text: str, kind: Kind[Any], *, env: tuple[str, ...] = (), alias: str = "") -> T:
    """Declare one setting. `env`: variables of its own, later ones win; `alias`: a second name it is known by."""
    details = {"text": text, "kind": kind, "env": env, "alias": alias}
    if default == {}:
        return field(default_factory=dict, metadata=details)  # type: ignore[return-value]
    return field(default=default, metadata=details)


def part(section: type[T], kind: Kind[T] | None = None) -> T:
    """Declare a section of settings, all of them at their defaults when the file leaves it out."""
    details = {"text": section.__doc__, "kind": kind or section_kind(section), "section": section}
    return field(default_factory=section, metadata=details)


def section_kind(section: Callable[..., T]) -> Kind[T]:
    return Kind("a mapping of settings", lambda entry: section(**read_section(section, entry)))


def read_section(section: Any, entry: Entry, everything: Iterable[str] = ()) -> dict[str, Any]:
    """Values for those settings of a section that the entry gives. Raises ConfigError with every complaint.

    `everything`: dotted names to suggest from, for the file as a whole.
    """
    check_kind(entry, "a mapping of settings", "map")
    known: dict[str, Field[Any]] = {each.name: each for each in fields(section) if "kind" in each.metadata}
    known |= {each.metadata["alias"]: each for each in known.values() if each.metadata.get("alias")}
    complaints, values = Complaints(), {}
    for name, child in entry.entries.items():
        with complaints.collected():
            if name not in known:
                raise _unknown(entry, child, list(known), everything)
            declared = known[name]
            if declared.name in values:
                raise child.error(f"is another name of {declared.name}, which is given too")
            values[declared.name] = declared.metadata["kind"].parse(child)
    complaints.check()
    return values


def _unknown(parent: Entry, child: Entry, known: list[str], everything: Iterable[str]) -> ConfigError:
    if parent.name.startswith("auth"):
        # The name itself may be a token that lost its place, so it isn't repeated.
        key = child.name.removeprefix(f"{parent.name}.")
        return ConfigError(f"{child.where}: unknown setting in {parent.name}{suggestion(key, known)}")
    if parent.name:
        return _no_such(child, [f"{parent.name}.{name}" for name in known])
    names = list(everything)
    last_parts = {name.rpartition(".")[2] for name in names}
    inner = [each for key, each in child.entries.items() if key in last_parts]
    if inner:
        return ConfigError([line for each in inner for line in _no_such(each, names).complaints])
    return _no_such(child, [*known, *names])


def _no_such(entry: Entry, candidates: list[str]) -> ConfigError:
    return ConfigError(f'{entry.where}: unknown setting "{entry.name}"{suggestion(entry.name, candidates)}')


def default_of(section: Any, name: str) -> Any:
    """The default of one setting of a section."""
    declared: Field[Any] = section.__dataclass_fields__[name]
    return declared.default_factory() if callable(declared.default_factory) else declared.default


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def apply_environment(root: Entry, environ: Mapping[str, str], names: Mapping[str, Field[Any]]) -> None:
    """Put what the environment says over what the file says. An empty variable counts as not set.

    `names`: dotted names with their declarations. Raises ConfigError for unknown names and for what is not YAML.
    """
    complaints = Complaints()
    for name, declared in names.items():
        for variable in declared.metadata.get("env", ()):
            if text := environ.get(variable, ""):
                with complaints.collected():
                    _put(root, name, _short_entry(variable, text, name, declared.metadata["kind"]))
    for variable, text in sorted(environ.items()):
        if variable.startswith(PREFIX) and text:
            with complaints.collected():
                _put(root, *_long_entry(variable, text, names))
    complaints.check()


def _short_entry(variable: str, text: str, name: str, kind: Kind[Any]) -> Entry:
    where = VARIABLE_WORDS + variable
    if kind.raw:
        return Entry(where, name, "str", text)
    if kind is BOOLEAN:
        text = {"1": "true", "0": "false"}.get(text, text)
    return parse_value(text, where, name)


def _long_entry(variable: str, text: str, names: Mapping[str, Field[Any]]) -> tuple[str, Entry]:
    name, where = variable.removeprefix(PREFIX).lower().replace("__", "."), VARIABLE_WORDS + variable
    if name not in names:
        raise ConfigError(f'{where}: unknown setting "{name}"{suggestion(name, names)}')
    return name, parse_value(text, where, name)


def _put(root: Entry, name: str, entry: Entry) -> None:
    parent = root
    *sections, key = name.split(".")
    for section in sections:
        parent = parent.entries.setdefault(section, Entry(entry.where, section, "map"))
    parent.entries[key] = entry
