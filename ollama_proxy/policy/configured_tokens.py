"""Keeps the tokens of the configuration out of the logs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from ollama_proxy.settings import GATEWAY_SHAPE, TokenShape, shape_of

REDACTED = "<redacted>"

#: Longest token that the configuration accepts; a text that was cut may end in the middle of one.
TOKEN_CHARS = 512

#: Candidates for tokens: runs of visible characters, and their parts by several
#: ways of splitting them.
_WORD = re.compile(r"[!-~]{1,512}")
_EDGES = "\"'`<>()[]{}.,;:!?\\"
_PARTS = [
    re.compile(pattern)
    for pattern in (r"[^\"'`<>(){}\[\],;=\\]+", r"[A-Za-z0-9._~+/-]+={0,2}", r"[A-Za-z0-9_-]+")
]
#: Shorter tokens can't be distinguished from words.
MIN_TOKEN_CHARS = 6

#: A shorter text is a token only if it stands alone.
_SHORT_WORD = re.compile(
    rf"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{{1,{MIN_TOKEN_CHARS - 1}}}(?![A-Za-z0-9_-])"
)

_MARK = re.compile(r"[^A-Za-z0-9_-]")
_MOST_MARKS = 24

#: How many texts without a token, such as names of models, are remembered, and the
#: length of the longest.
_MOST_REMEMBERED, _REMEMBERED_CHARS = 1024, 256

_METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split())


def candidates(text: str) -> set[str]:
    """Returns the parts of a text that may be tokens: its words without surrounding
    punctuation, and their parts."""
    words = set(_WORD.findall(text))
    words |= {word.strip(_EDGES) for word in words}
    made_of_parts = [word for word in words if not word.isalnum()]
    for pattern in _PARTS:
        words |= {part for word in made_of_parts for part in pattern.findall(word)}
    return {word for word in words if len(word) >= MIN_TOKEN_CHARS}


def _between_marks(text: str) -> set[str]:
    """Returns every part of a text between two punctuation marks, if it has at
    most _MOST_MARKS of them."""
    marks = [match.start() for match in _MARK.finditer(text)]
    if len(marks) > _MOST_MARKS:
        return set()
    starts, ends = (0, *(mark + 1 for mark in marks)), (*marks, len(text))
    return {text[start:end] for start in starts for end in ends if start < end}


class ConfiguredTokens:
    """The tokens that must not reach a log, wherever a client has put them.

    Tokens are stored as digests. A token whose shape is known too, because it was read in
    plain text or has been used, is found anywhere in a text; any other only if it stands
    between marks or blanks.
    """

    def __init__(self) -> None:
        self._shapes: dict[bytes, TokenShape | None] = {}
        self._clean: set[str] = set()
        self._index()

    def replace(self, shapes: Mapping[bytes, TokenShape | None]) -> None:
        """Replaces the tokens: digests with their shapes. Shapes that were learned are kept."""
        self._shapes = {
            digest: shape or self._shapes.get(digest) for digest, shape in shapes.items()
        }
        self._index()

    def learn(self, digest: bytes, token: str) -> bool:
        """Learns the shape of a token that was just accepted; returns whether it was unknown."""
        if digest not in self._shapes or self._shapes[digest]:
            return False
        self._shapes[digest] = shape_of(token)
        self._index()
        return True

    def _index(self) -> None:
        shapes = {shape for shape in self._shapes.values() if shape}
        self._has_unknown = None in self._shapes.values()
        if self._has_unknown:
            shapes.add(GATEWAY_SHAPE)  # most likely
        self._lengths: dict[str, list[int]] = {}
        for shape in shapes:
            self._lengths.setdefault(shape.head, []).append(shape.length)
        # Heads may overlap in a text, and one may be the beginning of another.
        self._heads = [re.compile(f"(?={re.escape(head)})") for head in self._lengths]
        self._shortest = (
            1 if self._has_unknown else min((shape.length for shape in shapes), default=1 << 30)
        )
        self._clean = set()

    def is_in(self, text: str) -> bool:
        """Whether the text is a token or contains one."""
        return self.redact(text) is not text

    def shown(self, text: str, most_chars: int) -> str:
        """Returns a text with its tokens masked, cut to `most_chars`; a
        token is never cut in two."""
        if len(text) <= most_chars and (len(text) < self._shortest or text in self._clean):
            return text
        head = text[: most_chars + TOKEN_CHARS]
        redacted = self.redact(head)
        return redacted[: max(0, len(redacted) - max(0, len(head) - most_chars))]

    def redact(self, text: str) -> str:
        """Returns a text of a few hundred characters with each token replaced; the same
        object if there is none."""
        if len(text) < self._shortest or text in self._clean:
            return text
        found = self._found(text)
        if not found and len(text) <= _REMEMBERED_CHARS:
            if len(self._clean) >= _MOST_REMEMBERED:
                self._clean.clear()
            self._clean.add(text)
        for token in sorted(found, key=len, reverse=True):
            text = text.replace(token, REDACTED)
        return text

    def _found(self, text: str) -> set[str]:
        """Returns the tokens in a text: among its words, or any part that has the shape of one."""
        parts = {text}
        if self._has_unknown:
            parts |= candidates(text)
            parts |= _between_marks(text)
        if self._shortest < MIN_TOKEN_CHARS:
            parts.update(_SHORT_WORD.findall(text))
        for pattern, lengths in zip(self._heads, self._lengths.values(), strict=True):
            for start in (match.start() for match in pattern.finditer(text)):
                parts.update(
                    text[start : start + length] for length in lengths if length >= MIN_TOKEN_CHARS
                )
        found: set[str] = set()
        for part in parts:
            # Outside of JSON, texts come as the Latin-1 reading of their bytes.
            readings = {part.encode("utf-8", "surrogatepass"), part.encode("latin-1", "replace")}
            if any(hashlib.sha256(reading).digest() in self._shapes for reading in readings):
                found.add(part)
        return found


def show_method(method: str) -> str:
    """A method of HTTP; anything else is hidden: it may be a token."""
    return method if method in _METHODS else "(unknown)"
