"""Canonical names of models, to which permissions, rules and limits apply. The client's own
spelling is sent on only if the upstream cannot take it for another model.

Grammar and defaults as in Ollama's `types/model`: `[host/][namespace/]model[:tag]`; and as in its
`internal/modelref`, which takes `:cloud` or `:local` behind that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate

#: Longest name of a model, in bytes: Ollama's own grammar allows a little more, for hosts of 350.
MAX_NAME_BYTES = 512

_SCHEME = re.compile(r"^https?://")

DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

_LOCAL = ":local"

_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAMESPACE = "[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"
#: The names that Ollama's parser accepts; each means the model of its canonical name there. A
#: host, and a scheme before it, only in front of a namespace. Only one source, which may not
#: repeat one in the tag.
OLLAMA_NAME = re.compile(
    rf"(?:(?:(?:https?://)?[A-Za-z0-9_][A-Za-z0-9_.:-]{{0,349}}/)?{_NAMESPACE}/)?{_PART}"
    rf"(?::(?!(?i:local|cloud|{_PART}-cloud):){_PART})?(?::(?i:local|cloud))?"
)


def is_well_formed(name: str) -> bool:
    """Whether any model may have this name, apart from spaces: at most MAX_NAME_BYTES, only
    printable characters, and no scheme but a leading `http` or `https`."""
    # Not printable: control and format characters (such as zero-width ones), and white
    # space except the space.
    if len(name) > MAX_NAME_BYTES or not name.isprintable():
        return False
    is_short = name.isascii() or len(name.encode()) <= MAX_NAME_BYTES
    return is_short and ("://" not in name or "://" not in _SCHEME.sub("", name))


def is_plain(name: str) -> bool:
    """Whether a name is spelled like its canonical one, except for case and the default tag:
    without parts that only Ollama ignores, and that would be another model's name to a provider."""
    return canonical(name) in (lowered := name.lower(), f"{lowered}:{DEFAULT_TAG}")


def canonical(name: str) -> str:
    """Returns a name in lower case, without default host, default namespace and the source
    `:local`, with its tag: ` Library/M` is `m:latest`."""
    return with_source(name[: -len(_LOCAL)] if is_local(name) else name)


def is_local(name: str) -> bool:
    """Whether a name ends with `:local`, which requires that the model is not in Ollama's cloud."""
    return name[-len(_LOCAL) :].lower() == _LOCAL


def with_source(name: str) -> str:
    """Returns the canonical name, but keeps `:local`."""
    path, _, last = _SCHEME.sub("", name.strip().lower()).rpartition("/")
    model, _, tag = last.partition(":")
    parents = [part for part in path.split("/") if part]
    if parents[:1] == [DEFAULT_HOST]:
        parents = parents[1:]
    if parents == [DEFAULT_NAMESPACE]:
        parents = []
    return "/".join([*parents, f"{model}:{tag or DEFAULT_TAG}"])


def split_upstream(name: str, upstreams: Iterable[str]) -> tuple[str, str]:
    """Returns the first of the upstreams that a name begins with, in any case, as in `box1/m` or
    `box1:m`, and the rest; "" and the whole name if there is none."""
    for upstream in upstreams:
        size = len(upstream)
        if (
            name[size : size + 1] in (":", "/")
            and len(name) > size + 1
            and name[:size].lower() == upstream.lower()
        ):
            return upstream, name[size + 1 :]
    return "", name


def is_allowed(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`*` and `?`) covers the model; a pattern without a tag means
    `:latest`, unless it ends with `*`."""
    wanted = canonical(name)
    return any(fnmatchcase(wanted, _canonical_pattern(pattern)) for pattern in patterns)


def compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    """Compiles patterns to one expression for canonical names, with a group for each:
    `lastindex` of a match, from 1, is the first pattern that covers the name. For many names,
    for which is_allowed is slow."""
    return re.compile(
        "|".join(f"({translate(_canonical_pattern(pattern))})" for pattern in patterns) or r"(?!)"
    )


def _canonical_pattern(pattern: str) -> str:
    open_ended = pattern.endswith("*") and ":" not in pattern.rpartition("/")[2]
    covered = canonical(pattern)
    # fnmatch also knows [...], which no name has.
    return (covered.removesuffix(f":{DEFAULT_TAG}") if open_ended else covered).replace("[", "[[]")


def is_cloud(name: str) -> bool:
    """Whether Ollama would send this request to its cloud: `m:cloud`, `m:120b-cloud`."""
    if "cloud" not in name.lower():
        return False
    _, mark, suffix = name.lower().rpartition(":")
    suffix = suffix.strip()
    return bool(mark) and (suffix == "cloud" or (suffix.endswith("-cloud") and "/" not in suffix))


def renamed(text: str, target: str, name: str) -> str:
    """Replaces the model name `target` in a sentence by `name`; longer words
    that contain it stay."""
    return re.sub(rf"(?<![\w./:-]){re.escape(target)}(?![\w/-])", lambda match: name, text)
