"""The part of a request or an answer that may be logged: no secrets, no images,
and a limited length."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

from ollama_proxy.hub import Json
from ollama_proxy.policy import REDACTED, TOKEN_CHARS, ConfiguredTokens, candidates
from ollama_proxy.wire import base64_media_type

#: Most characters of one value, and what each of its parts adds to its own length.
MAX_CHARS, PART_CHARS = 1 << 20, 8

#: Longest name of a field.
MAX_KEY_CHARS = 500

#: Deeper levels are left out.
MAX_DEPTH = 50

#: The names of fields that hold a secret, in lower case.
_SECRET_NAME = re.compile(
    r"(?:^|[-_.])(?:authorization|api[-_]?key|(?:access|auth|refresh)[-_]?token|password|cookie)$"
)

# The lookbehinds and the limited lookaheads keep a text full of prefixes from
# taking quadratic time.
_KEYS = "sk pk rk gsk hf gho ghp ghs ghu glpat xoxa xoxb xoxp xoxr xoxs xai".split()
#: Secrets with a form of their own.
_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])(?:eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    rf"|(?:{'|'.join(_KEYS)})[-_](?=[\w-]*\d)[\w-]{{16,}}"
    r"|github_pat_\w{20,}|AKIA[0-9A-Z]{16}\b|AIza[\w-]{30,})"
)
#: A text without any of these has no such secret, so most texts are never searched.
_SECRET_SIGNS = [
    "-----BEGIN ",
    "eyJ",
    "github_pat_",
    "AKIA",
    "AIza",
    *(key + mark for key in _KEYS for mark in "-_"),
]
#: Secrets recognised by the word in front of them, which is kept.
_NAMED = re.compile(
    r"(\bbearer\s+|\b(?:authorization|api[-_ "
    r"]?key|(?:access|auth)[-_]token|password)\b[\"\']?\s*[:=]\s*[\"\']?"
    r"(?:bearer\s+|basic\s+)?|/k/)(?=[^\s\"\',;/]{0,64}[\d_-])[^\s\"\',;/]{6,}",
    re.IGNORECASE,
)
_NAMED_SIGNS = [
    "bearer",
    "authorization",
    "apikey",
    "api-key",
    "api_key",
    "api key",
    "token",
    "password",
    "/k/",
]

_DATA_URL = re.compile(
    r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[\w.+-]+)*;base64,([\w+/=%-]*)", re.IGNORECASE
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
#: How much of a text is examined to recognise base64, and the shortest text that is taken
#: for it, in characters.
_HEAD_CHARS, _DATA_CHARS = 4096, 512
#: Fields that usually hold base64, each with a lower limit.
_DATA_FIELDS = {"images": 16, "data": 64, "file_data": 64, "b64_json": 64}


@dataclass(slots=True, repr=False)
class Redaction:
    """Redacts the values of one record."""

    #: SHA-256 of each configured token.
    _tokens: Collection[bytes]
    #: The same in any form that the gateway knows.
    _configured_tokens: ConfiguredTokens
    #: How many characters may still be logged.
    _left: int = MAX_CHARS
    #: Something was left out.
    cut: bool = False

    def redact(self, value: Json, name: str = "", depth: int = 0) -> Json:
        """The part of a value that may be logged; `name`: the field that holds it."""
        self._left -= PART_CHARS
        if isinstance(value, str):
            return self._redact_text(value, name)
        if not isinstance(value, dict | list):
            return REDACTED if type(value) in (int, float) and _SECRET_NAME.search(name) else value
        if depth >= MAX_DEPTH:
            self.cut = True
            return "<nested too deep>"
        if isinstance(value, dict):
            fields: dict[str, Json] = {}
            for key, inner in value.items():
                if self._left <= 0:
                    self.cut = True
                    break
                self._left -= len(key)
                is_long = len(key) > MAX_KEY_CHARS
                shown = f"<a name of {len(key)} characters>" if is_long else self.mask_secrets(key)
                fields[shown] = self.redact(inner, key[:64].lower(), depth + 1)
            return fields
        items: list[Json] = []
        for item in value:
            if self._left <= 0:
                self.cut = True
                return [*items, f"<{len(value) - len(items)} more left out>"]
            items.append(self.redact(item, name, depth + 1))
        return items

    def _redact_text(self, text: str, name: str) -> str:
        if _SECRET_NAME.search(name):
            return REDACTED
        # Long texts are mostly base64, so the first characters decide, and the rest is not read.
        head = text[:_HEAD_CHARS]
        if match := _DATA_URL.match(head):
            if " " not in text and "\n" not in text:
                return _describe_data(match[1] or "", len(text) - match.start(2))
        elif (
            len(text) >= _DATA_FIELDS.get(name, _DATA_CHARS)
            and _BASE64.fullmatch(head)
            and " " not in text
        ):
            return _describe_data(base64_media_type(head), len(text))
        kept = text
        if len(text) > self._left:  # the last word is left out, because it may be a part of a token
            head = text[: max(0, self._left)]
            last = head[-TOKEN_CHARS:]
            kept = head[:-TOKEN_CHARS] + last[: last.rfind(" ") + 1]
        self._left -= len(kept)
        shown = self.mask_secrets(
            _DATA_URL.sub(lambda match: _describe_data(match[1] or "", len(match[2])), kept)
        )
        if len(kept) == len(text):
            return shown
        self.cut = True
        return f"{shown}<{len(text) - len(kept)} more characters left out>"

    def mask_secrets(self, text: str) -> str:
        """A text in which whatever looks like a key, and each configured token, is masked."""
        if any(sign in text for sign in _SECRET_SIGNS):
            text = _SECRETS.sub(REDACTED, text)
        lower = text.lower()
        if any(sign in lower for sign in _NAMED_SIGNS):
            text = _NAMED.sub(rf"\1{REDACTED}", text)
        for word in candidates(text):
            if hashlib.sha256(word.encode()).digest() in self._tokens:
                text = text.replace(word, REDACTED)
        return self._configured_tokens.redact(text)


def _describe_data(kind: str, chars: int) -> str:
    word = "image" if kind.startswith("image/") else "data"
    return f"<{word} {kind} {chars * 3 // 4} bytes>" if kind else f"<{word} {chars * 3 // 4} bytes>"
