"""One name for a model, whatever its spelling: rights are decided on it, the client's own spelling is what is sent on.

Grammar and defaults as in Ollama's `types/model`: `[host/][namespace/]model[:tag]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate

_SCHEME = re.compile(r"^https?://")

DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"


def canonical(name: str) -> str:
    """Lower case, without default host and namespace, with its tag: ` Library/M` is `m:latest`."""
    path, _, last = _SCHEME.sub("", name.strip().lower()).rpartition("/")
    model, _, tag = last.partition(":")
    parents = [part for part in path.split("/") if part]
    if parents[:1] == [DEFAULT_HOST]:
        parents = parents[1:]
    if parents == [DEFAULT_NAMESPACE]:
        parents = []
    return "/".join([*parents, f"{model}:{tag or DEFAULT_TAG}"])


def is_allowed(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`*` and `?`) covers the model; a pattern without a tag means `:latest`,
    unless it ends with `*`."""
    wanted = canonical(name)
    return any(fnmatchcase(wanted, _canonical_pattern(pattern)) for pattern in patterns)


def compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    """The same patterns as one expression for canonical names, with a group for each: `lastindex` of a match, from 1,
    says which of them is the first to cover it. For many names, where is_allowed is slow."""
    return re.compile("|".join(f"({translate(_canonical_pattern(pattern))})" for pattern in patterns) or r"(?!)")


def _canonical_pattern(pattern: str) -> str:
    open_ended = pattern.endswith("*") and ":" not in pattern.rpartition("/")[2]
    covered = canonical(pattern)
    # fnmatch also knows [...], which no name has.
    return (covered.removesuffix(f":{DEFAULT_TAG}") if open_ended else covered).replace("[", "[[]")


def is_cloud(name: str) -> bool:
    """Whether Ollama would send this request to its cloud: `m:cloud`, `m:120b-cloud`."""
    if "cloud" not in name.lower():
        return False
    tag = canonical(name).rpartition(":")[2]
    return tag == "cloud" or tag.endswith("-cloud")


def renamed(text: str, target: str, name: str) -> str:
    """A sentence that calls a model `name` where it said `target`; other words that hold those letters stay."""
    return re.sub(rf"(?<![\w./:-]){re.escape(target)}(?![\w/-])", lambda match: name, text)
