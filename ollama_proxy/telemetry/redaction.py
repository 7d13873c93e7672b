"""What of a request or an answer may be written down: no secrets, no images, and never more than so much."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

from ollama_proxy.hub import Json
from ollama_proxy.policy import REDACTED, TOKEN_CHARS, TOKENS, candidates
from ollama_proxy.wire import base64_media_type

#: What one value may come to, in characters; each of its parts counts for some more, however short it is.
MAX_CHARS, PART_CHARS = 1 << 20, 8

#: Longest name of a field.
MAX_KEY_CHARS = 500

#: Deeper inside, nothing is looked at.
MAX_DEPTH = 50

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

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[\w.+-]+)*;base64,([\w+/=%-]*)", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
#: How much of a text is looked at to see what it is, and the shortest one that is taken for base64, in characters.
_HEAD_CHARS, _DATA_CHARS = 4096, 512
#: Where it is expected, a shorter one will do.
_DATA_FIELDS = {"images": 16, "data": 64, "file_data": 64, "b64_json": 64}


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
        kept = text
        if len(text) > self._left:  # without the last word, which may be a part of a token
            head = text[: max(0, self._left)]
            last = head[-TOKEN_CHARS:]
            kept = head[:-TOKEN_CHARS] + last[: last.rfind(" ") + 1]
        self._left -= len(kept)
        shown = self.without_secrets(_DATA_URL.sub(lambda match: _data(match[1] or "", len(match[2])), kept))
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


def _as_data(text: str, name: str) -> str | None:
    """What is said of a text that is nothing but data; None: it is a text. Looks at its head alone: what is large is
    mostly data, and the rest of it must not be read for nothing."""
    head = text[:_HEAD_CHARS]
    if match := _DATA_URL.match(head):
        return None if " " in text or "\n" in text else _data(match[1] or "", len(text) - match.start(2))
    if len(text) >= _DATA_FIELDS.get(name, _DATA_CHARS) and _BASE64.fullmatch(head) and " " not in text:
        return _data(base64_media_type(head), len(text))
    return None


def _data(kind: str, chars: int) -> str:
    word = "image" if kind.startswith("image/") else "data"
    return f"<{word} {kind} {chars * 3 // 4} bytes>" if kind else f"<{word} {chars * 3 // 4} bytes>"
