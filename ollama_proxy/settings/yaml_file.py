"""A configuration file becomes a tree of entries that know their line; nothing is made of them here.

Strict on purpose: whatever YAML would read as something else than the person meant is refused, with file and line.
No complaint ever holds a value, because any value may be a token. Names are quoted unless they may be a token that has
lost its place: below `auth` only the declared ones are. Imports nothing of the package but its errors.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ollama_proxy.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20

#: Longest name that a complaint quotes.
MAX_QUOTED_CHARS = 200

#: Tokens as the gateway makes them are never quoted, wherever they stand.
_TOKEN = re.compile(r"op_[0-9A-Za-z]{20}")
#: At the top of the file nothing has a name of another form.
_SETTING = re.compile(r"[a-z_]+")

_UTF8_MARK = b"\xef\xbb\xbf"


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


def parse_document(data: bytes, shown: str, auth_names: Collection[str] = ()) -> Entry:
    """The file as a mapping; only comments make an empty mapping. Raises ConfigError with file and line.

    `auth_names`: the names below `auth` that complaints may quote.
    """
    text = _decoded(data, shown)
    node = _composed(text, lambda line: f"{shown}:{line}", shown)
    if node is None:
        return Entry(f"{shown}:1", "", "map")
    root = _entry(node, "", lambda line: f"{shown}:{line}", auth_names)
    if root.kind != "map":
        raise ConfigError(f"{root.where}: the file must be made of settings, such as 'service:'")
    return root


def parse_value(text: str, where: str, name: str) -> Entry:
    """One YAML value from an environment variable, as strict as the file."""
    node = _composed(text, lambda _: where, where)
    if node is None:
        return Entry(where, name, "null")
    return _entry(node, name, lambda _: where, ())


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
    """Composes nodes without aliases, anchors, tags and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node with all below it. Raises _Refused with the place."""
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


def _entry(node: yaml.Node, name: str, locate: Callable[[int], str], auth_names: Collection[str]) -> Entry:
    where = locate(node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return Entry(where, name, _kind(node), node.value)
    if isinstance(node, yaml.SequenceNode):
        items = (_entry(item, f"{name}[{index}]", locate, auth_names) for index, item in enumerate(node.value, 1))
        return Entry(where, name, "seq", items=tuple(items))
    return Entry(where, name, "map", entries=_entries(node, name, locate, auth_names))


def _entries(node: yaml.Node, name: str, locate: Callable[[int], str], auth_names: Collection[str]) -> dict[str, Entry]:
    """The values of a mapping by their names. Raises ConfigError for a name that is repeated or that is not text."""
    prefix = f"{name}." if name else ""
    entries: dict[str, Entry] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        quoted = _quoted_name(key, prefix, auth_names)
        if _kind(key) != "str":
            raise ConfigError(f"{locate(line)}: a name is not text: put quotes around {quoted or 'it'}")
        if key.value in entries:
            remark = f": {quoted}" if quoted else ""
            raise ConfigError(f"{locate(line)}: the same name is already on line {lines[key.value]}{remark}")
        lines[key.value] = line
        entries[key.value] = _entry(value, prefix + key.value, locate, auth_names)
    return entries


def _quoted_name(key: yaml.Node, prefix: str, auth_names: Collection[str]) -> str:
    """The name as a complaint may quote it; "" for one that may be a token in the wrong place."""
    if not isinstance(key, yaml.ScalarNode) or len(key.value) > MAX_QUOTED_CHARS or not key.value.isprintable():
        return ""
    if prefix.startswith("auth."):
        is_harmless = key.value in auth_names
    elif prefix:
        is_harmless = not _TOKEN.search(key.value)
    else:
        is_harmless = _SETTING.fullmatch(key.value) is not None
    return f'"{key.value}"' if is_harmless else ""
