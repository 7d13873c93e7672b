"""Parses a configuration file into a tree of entries with their lines; their meaning is
left to the declarations.

Strict on purpose: YAML that could be read differently from what was meant is refused, with file and
line. No error quotes a value, because any value may be a token. Names are quoted unless they may be
a misplaced token: below `auth` only the declared ones are.
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

#: Longest name that an error quotes, in characters.
MAX_QUOTED_CHARS = 200

#: Tokens in the form of the gateway are never quoted.
_TOKEN = re.compile(r"op_[0-9A-Za-z]{20}")
#: The form of all names at the top level.
_SETTING = re.compile(r"[a-z_]+")

_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Entry:
    """One value as written; `where`: `file:line` or the name of an environment variable."""

    where: str
    #: Dotted name of the setting, such as `server.port` or `upstreams[2].kind`;
    #: empty for the whole file.
    name: str
    #: Its type in YAML: str, int, float, bool, null, timestamp, seq, map, ...
    kind: str
    #: Source text of a scalar; not in its repr, because it may be a token.
    text: str = field(default="", repr=False)
    items: tuple[Entry, ...] = ()
    entries: dict[str, Entry] = field(default_factory=dict)

    def error(self, problem: str) -> ConfigError:
        """An error about this entry, which does not quote its text."""
        return ConfigError([f"{self.where}: {self.name or 'the file'} {problem}"])


@dataclass(slots=True)
class Complaints:
    """Collects the errors of several steps, so that one ConfigError lists them all."""

    lines: list[str] = field(default_factory=list)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the ConfigError that the block raises."""
        try:
            yield
        except ConfigError as error:
            self.lines += error.complaints

    def check(self) -> None:
        """Raise one ConfigError with all collected errors, if there are any."""
        if self.lines:
            raise ConfigError(self.lines)


def read_bytes(path: Path, shown: str) -> bytes:
    """Content of the file. Raises ConfigError if it is missing, not a regular file,
    unreadable or over 1 MiB."""
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
    """The file as a mapping; only comments make an empty mapping. Raises
    ConfigError with file and line.

    `auth_names`: the names below `auth` that errors may quote.
    """
    if data.startswith(_UTF8_MARK):
        raise ConfigError(
            f"{shown}:1: starts with a byte order mark; save the file as UTF-8 without BOM"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}:{line}: is not UTF-8 text") from None
    if not text.strip():
        raise ConfigError(f"{shown}:1: the file is empty; write at least one setting or remove it")
    node = _compose(text, lambda line: f"{shown}:{line}", shown)
    if node is None:
        return Entry(f"{shown}:1", "", "map")
    root = _entry(node, "", lambda line: f"{shown}:{line}", auth_names)
    if root.kind != "map":
        raise ConfigError(f"{root.where}: the file must consist of settings, such as 'service:'")
    return root


def parse_value(text: str, where: str, name: str) -> Entry:
    """One YAML value from an environment variable, as strict as the file."""
    node = _compose(text, lambda _: where, where)
    if node is None:
        return Entry(where, name, "null")
    return _entry(node, name, lambda _: where, ())


class _Refused(Exception):
    """Its arguments are the problem and the mark of its place."""


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes without aliases, anchors, tags and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node and everything below it. Raises _Refused with the place."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(
                "anchors and aliases (& and *) are not supported; put quotes around text",
                event.start_mark,
            )
        if getattr(event, "tag", None) is not None:
            raise _Refused("tags (!) are not supported; put quotes around text", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _Refused("is nested too deeply", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _compose(text: str, locate: Callable[[int], str], shown: str) -> yaml.Node | None:
    """The node tree of `text`. PyYAML's own messages are shortened, because
    they quote the source."""
    try:
        loader = _StrictLoader(text)
        return loader.get_single_node()
    except _Refused as error:
        problem, mark = error.args
        raise ConfigError(f"{locate(mark.line + 1)}: {problem}") from error
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        where = shown if place is None else locate(place.line + 1)
        problem = re.sub(r"'[^'<]{2,}'", "'...'", error.problem or "")
        raise ConfigError(f"{where}: is not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise ConfigError(f"{locate(line)}: contains a character that is not allowed") from None


def _kind(node: yaml.Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _entry(
    node: yaml.Node, name: str, locate: Callable[[int], str], auth_names: Collection[str]
) -> Entry:
    """A node as an entry. Raises ConfigError for a name in a mapping that is
    repeated or not text."""
    where = locate(node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return Entry(where, name, _kind(node), node.value)
    if isinstance(node, yaml.SequenceNode):
        items = (
            _entry(item, f"{name}[{index}]", locate, auth_names)
            for index, item in enumerate(node.value, 1)
        )
        return Entry(where, name, "seq", items=tuple(items))
    prefix = f"{name}." if name else ""
    entries: dict[str, Entry] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        quoted = _quoted_name(key, prefix, auth_names)
        if _kind(key) != "str":
            raise ConfigError(
                f"{locate(line)}: a name must be text: put quotes around {quoted or 'it'}"
            )
        if key.value in entries:
            remark = f": {quoted}" if quoted else ""
            raise ConfigError(
                f"{locate(line)}: the same name is already on line {lines[key.value]}{remark}"
            )
        lines[key.value] = line
        entries[key.value] = _entry(value, prefix + key.value, locate, auth_names)
    return Entry(where, name, "map", entries=entries)


def _quoted_name(key: yaml.Node, prefix: str, auth_names: Collection[str]) -> str:
    """The name with quotes for an error; "" if it may be a misplaced token."""
    if (
        not isinstance(key, yaml.ScalarNode)
        or len(key.value) > MAX_QUOTED_CHARS
        or not key.value.isprintable()
    ):
        return ""
    if prefix.startswith("auth."):
        is_harmless = key.value in auth_names
    elif prefix:
        is_harmless = not _TOKEN.search(key.value)
    else:
        is_harmless = _SETTING.fullmatch(key.value) is not None
    return f'"{key.value}"' if is_harmless else ""
