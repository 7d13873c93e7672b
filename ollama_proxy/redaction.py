"""What of a request or an answer may be written down: no secrets, no images, and never more than so much."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from ollama_proxy.hub import Json

REDACTED = "<redacted>"

#: What one value may come to, in characters; each of its parts counts for some more, however short it is.
MAX_CHARS, PART_CHARS = 1 << 20, 8

#: Longest name of a field.
MAX_KEY_CHARS = 500

#: Deeper inside, nothing is looked at.
MAX_DEPTH = 50

#: Longest token that the configuration takes; what was cut may end in the middle of one.
TOKEN_CHARS = 512

#: Fields that hold a secret, by their names in lower case.
_SECRET_NAME = re.compile(
    r"(?:^|[-_.])(?:authorization|api[-_]?key|(?:access|auth|refresh)[-_]?token|password|cookie)$"
)

# In these, what comes in front or how far is looked ahead keeps a text of nothing but beginnings from taking forever.
_KEYS = "sk pk rk gsk hf gho ghp ghs ghu glpat xoxa xoxb xoxp xoxr xoxs xai".split()
#: Secrets that show what they are.
_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])(?:eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    rf"|(?:{'|'.join(_KEYS)})[-_](?=[\w-]*\d)[\w-]{{16,}}"
    r"|github_pat_\w{20,}|AKIA[0-9A-Z]{16}\b|AIza[\w-]{30,})"
)
#: Without any of these in it, a text has none of those: most texts are not searched at all.
_SECRET_SIGNS = ["-----BEGIN ", "eyJ", "github_pat_", "AKIA", "AIza", *(key + mark for key in _KEYS for mark in "-_")]
#: Secrets that are told by the word in front, which stays.
_NAMED = re.compile(
    r"(\bbearer\s+|\b(?:authorization|api[-_ ]?key|(?:access|auth)[-_]token|password)\b[\"\']?\s*[:=]\s*[\"\']?"
    r"(?:bearer\s+|basic\s+)?|/k/)(?=[^\s\"\',;/]{0,64}[\d_-])[^\s\"\',;/]{6,}",
    re.IGNORECASE,
)
_NAMED_SIGNS = ["bearer", "authorization", "apikey", "api-key", "api_key", "api key", "token", "password", "/k/"]

#: What may be a token of ours: a run of visible characters, and its parts by several ways of taking it apart.
_WORD = re.compile(r"[!-~]{1,512}")
_EDGES = "\"'`<>()[]{}.,;:!?\\"
_PARTS = [
    re.compile(pattern) for pattern in (r"[^\"'`<>(){}\[\],;=\\]+", r"[A-Za-z0-9._~+/-]+={0,2}", r"[A-Za-z0-9_-]+")
]
#: Shorter tokens can't be told from words.
MIN_TOKEN_CHARS = 6

#: What is a token of fewer characters only if it stands alone.
_SHORT_WORD = re.compile(rf"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{{1,{MIN_TOKEN_CHARS - 1}}}(?![A-Za-z0-9_-])")

_MARK = re.compile(r"[^A-Za-z0-9_-]")
_MOST_MARKS = 24

#: Texts without a token that are remembered, such as names of models, and how long each of them may be.
_MOST_REMEMBERED, _REMEMBERED_CHARS = 1024, 256

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[\w.+-]+)*;base64,([\w+/=%-]*)", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
#: How much of a text is looked at to see what it is, and the shortest one that is taken for base64, in characters.
_HEAD_CHARS, _DATA_CHARS = 4096, 512
#: Where it is expected, a shorter one will do.
_DATA_FIELDS = {"images": 16, "data": 64, "file_data": 64, "b64_json": 64}
_KINDS = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}


#: Keys as vendors make them, whole or with stars in the middle.
_VENDORS_KEYS = re.compile(r"\b(?:sk|gsk|ark|tgp|hf)[-_][A-Za-z0-9_*-]{6,}|\bBearer\s+\S+", re.IGNORECASE)
_ADDRESSES = re.compile(r"https?://[^\s\"'<>)]+")


def without_keys(text: str, secrets: Sequence[str] = ()) -> str:
    """What a provider says, without these secrets, without keys, and without addresses, of which ours could be one."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "...")
    return _ADDRESSES.sub("...", _VENDORS_KEYS.sub("...", text))


class Redaction:
    """One value on its way into a log; `tokens`: SHA-256 of each of ours. `cut` says afterwards whether some of the
    value was left out."""

    def __init__(self, tokens: Collection[bytes], max_chars: int = MAX_CHARS) -> None:
        self._tokens = tokens
        self._left = max_chars
        self.cut = False

    def of(self, value: Json, name: str = "", depth: int = 0) -> Json:
        """What may be written down of a value; `name` is the field that it stands in."""
        self._left -= PART_CHARS
        if isinstance(value, str):
            return self._text(value, name)
        if isinstance(value, dict | list):
            if depth < MAX_DEPTH:
                return self._object(value, depth) if isinstance(value, dict) else self._list(value, name, depth)
            self.cut = True
            return "<nested too deep>"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return REDACTED if is_number and _SECRET_NAME.search(name) else value

    def _object(self, value: dict[str, Json], depth: int) -> dict[str, Json]:
        shown: dict[str, Json] = {}
        for key, inner in value.items():
            if self._left <= 0:
                self.cut = True
                break
            shown[self._key(key)] = self.of(inner, key[:64].lower(), depth + 1)
        return shown

    def _list(self, value: list[Json], name: str, depth: int) -> list[Json]:
        shown: list[Json] = []
        for inner in value:
            if self._left <= 0:
                self.cut = True
                shown.append(f"<{len(value) - len(shown)} more left out>")
                break
            shown.append(self.of(inner, name, depth + 1))
        return shown

    def _key(self, key: str) -> str:
        self._left -= len(key)
        return self.without_secrets(key) if len(key) <= MAX_KEY_CHARS else f"<a name of {len(key)} characters>"

    def _text(self, text: str, name: str) -> str:
        if _SECRET_NAME.search(name):
            return REDACTED
        if data := _as_data(text, name):
            return data
        kept = text if len(text) <= self._left else _without_last_word(text[: max(0, self._left)])
        self._left -= len(kept)
        shown = self.without_secrets(_DATA_URL.sub(_url_as_data, kept))
        if len(kept) == len(text):
            return shown
        self.cut = True
        return f"{shown}<{len(text) - len(kept)} more characters left out>"

    def without_secrets(self, text: str) -> str:
        """A text without what looks like a key, and without our own tokens."""
        if any(sign in text for sign in _SECRET_SIGNS):
            text = _SECRETS.sub(REDACTED, text)
        lower = text.lower()
        if any(sign in lower for sign in _NAMED_SIGNS):
            text = _NAMED.sub(rf"\1{REDACTED}", text)
        for word in candidates(text):
            if hashlib.sha256(word.encode()).digest() in self._tokens:
                text = text.replace(word, REDACTED)
        return TOKENS.redact(text)


def candidates(text: str) -> set[str]:
    """What in a text may be a token: its words, without marks around them, and their parts."""
    words = set(_WORD.findall(text))
    words |= {word.strip(_EDGES) for word in words}
    made_of_parts = [word for word in words if not word.isalnum()]
    for pattern in _PARTS:
        words |= {part for word in made_of_parts for part in pattern.findall(word)}
    return {word for word in words if len(word) >= MIN_TOKEN_CHARS}


def _between_marks(text: str) -> Iterator[str]:
    """Every part of a text that begins and ends at a mark, if there are only a few marks."""
    marks = [match.start() for match in _MARK.finditer(text)]
    if len(marks) <= _MOST_MARKS:
        ends = [*marks, len(text)]
        yield from (text[start:end] for start in (0, *(mark + 1 for mark in marks)) for end in ends if start < end)


class TokenShape(NamedTuple):
    """What is kept of a token besides its digest, so that it is found inside longer texts."""

    #: Its first characters: only where they stand is a digest computed.
    head: str
    length: int


def shape_of(token: str) -> TokenShape:
    """The shape of a token in plain text."""
    return TokenShape(token[:3], len(token))


#: That of the tokens which the gateway makes.
GATEWAY_SHAPE = TokenShape("op_", 41)


class ConfiguredTokens:
    """The tokens that must not reach a log, wherever a client has put them. One for each process, see TOKENS.

    Tokens are known by their digests. One whose shape is known too, because it was read in plain text or has been used,
    is found anywhere in a text; any other only if it stands between marks or blanks.
    """

    def __init__(self) -> None:
        self._shapes: dict[bytes, TokenShape | None] = {}
        self._clean: set[str] = set()
        self._index()

    def replace(self, shapes: Mapping[bytes, TokenShape | None]) -> None:
        """Takes another list of tokens: digests with their shapes. What was learned of a digest stays known."""
        self._shapes = {digest: shape or self._shapes.get(digest) for digest, shape in shapes.items()}
        self._index()

    def learn(self, digest: bytes, token: str) -> bool:
        """Takes the shape of a token that has just been accepted; says whether that is news."""
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
        self._shortest = 1 if self._has_unknown else min((shape.length for shape in shapes), default=1 << 30)
        self._clean = set()

    def is_in(self, text: str) -> bool:
        """Whether the text is a token or contains one."""
        return self.redact(text) is not text

    def shown(self, text: str, most_chars: int) -> str:
        """At most so many characters of a text, without tokens, nor a part of one that the cut goes through."""
        if len(text) <= most_chars and (len(text) < self._shortest or text in self._clean):
            return text
        head = text[: most_chars + TOKEN_CHARS]
        redacted = self.redact(head)
        return redacted[: max(0, len(redacted) - max(0, len(head) - most_chars))]

    def redact(self, text: str) -> str:
        """A text of a few hundred characters with each token replaced; the same object if there is none."""
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
        words = candidates(text) | set(_between_marks(text)) if self._has_unknown else set()
        words |= set(_SHORT_WORD.findall(text)) if self._shortest < MIN_TOKEN_CHARS else set()
        return {word for word in {text, *words, *self._shaped(text)} if self._is_token(word)}

    def _shaped(self, text: str) -> Iterator[str]:
        """Every part of a text that has the shape of a token."""
        for pattern, lengths in zip(self._heads, self._lengths.values(), strict=True):
            for match in pattern.finditer(text):
                start = match.start()
                yield from (text[start : start + length] for length in lengths if length >= MIN_TOKEN_CHARS)

    def _is_token(self, text: str) -> bool:
        # Outside of JSON, texts come as the Latin-1 reading of their bytes.
        encoded = text.encode("utf-8", "surrogatepass")
        if hashlib.sha256(encoded).digest() in self._shapes:
            return True
        return not text.isascii() and hashlib.sha256(text.encode("latin-1", "replace")).digest() in self._shapes


#: Set by the gateway; read by whatever writes a log.
TOKENS = ConfiguredTokens()


def _without_last_word(text: str) -> str:
    head, tail = text[:-TOKEN_CHARS], text[-TOKEN_CHARS:]
    return head + tail[: tail.rfind(" ") + 1]


def _as_data(text: str, name: str) -> str | None:
    """What is said of a text that is nothing but data; None: it is a text. Looks at its head alone: what is large is
    mostly data, and the rest of it must not be read for nothing."""
    head = text[:_HEAD_CHARS]
    if match := _DATA_URL.match(head):
        return None if " " in text or "\n" in text else _data(match[1] or "", len(text) - match.start(2))
    if len(text) >= _DATA_FIELDS.get(name, _DATA_CHARS) and _BASE64.fullmatch(head) and " " not in text:
        kind = next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), "")
        return _data(kind, len(text))
    return None


def _url_as_data(match: re.Match[str]) -> str:
    return _data(match[1] or "", len(match[2]))


def _data(kind: str, chars: int) -> str:
    word = "image" if kind.startswith("image/") else "data"
    return f"<{word} {kind} {chars * 3 // 4} bytes>" if kind else f"<{word} {chars * 3 // 4} bytes>"
