"""A configuration file becomes a tree of entries that know their line; nothing is made of them here.

Strict on purpose: whatever YAML would read as something else than the person meant is refused, with file and line.
No complaint ever holds a value, because any value may be a token. Imports nothing of the package but its errors.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ollama_proxy.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20

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

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping, each of its names checked."""
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
