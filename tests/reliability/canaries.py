"""Secrets that may be written nowhere: the ways in which they come in, and where to look for them.

All canaries begin alike, so that one search finds every one of them, in every disguise
that somebody could undo.
"""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.rig import fault_upstream as do
from tests.rig import native_chat
from tests.rig.fault_upstream import MODEL

BEGINNING = "canary-"


def canary(*case: object) -> str:
    """The secret of a case, unlike that of any other."""
    return BEGINNING + hashlib.sha256(repr(case).encode()).hexdigest()[:20]


def digest(token: str) -> str:
    """The form in which a configuration names a token without having it."""
    return hashlib.sha256(token.encode()).hexdigest()


# Where to look.


def _disguises() -> Iterator[str]:
    """Patterns of the common beginning: as it is or escaped as in addresses, and as base64
    at each of its offsets."""
    yield "".join(f"(?:{re.escape(letter)}|%{ord(letter):02x})" for letter in BEGINNING)
    for offset in range(3):
        whole = base64.b64encode(b"\0" * offset + BEGINNING.encode()).decode()
        yield re.escape(whole[(0, 2, 3)[offset] : len(BEGINNING + "\0" * offset) * 8 // 6])


_CANARY = re.compile("|".join(_disguises()), re.IGNORECASE)


def leaks(texts: Mapping[str, str]) -> list[str]:
    """Each canary in these texts, with where it is and what stands around it."""
    return [
        f"{where}: ...{text[max(0, found.start() - 120) : found.end() + 40]!r}"
        for where, text in texts.items()
        for found in _CANARY.finditer(text)
    ]


def written(directories: Iterable[Path]) -> dict[str, str]:
    """The text of every file below these directories."""
    files = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    return {str(path): path.read_text(encoding="utf-8", errors="replace") for path in files}


def command_lines(pids: Iterable[int]) -> dict[str, str]:
    """What everybody on the machine can read of these processes."""
    return {
        f"cmdline of {pid}": Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
        for pid in pids
    }


# Tokens where none belongs.

PLACES = [
    "/k/{token}/api/tags",
    "/k/{token}",
    "/k/{token}/",
    "/k/{token}/nope",
    "/k/{token}/api/tags?key={token}",
    "/k/{escaped}/api/tags",
    "/%6b/{token}/api/tags",
    "/api/tags?token={token}",
    "//k/{token}/api/tags",
    "/k//{token}/api/tags",
    "/K/{token}/api/tags",
    "/k/{token}/k/{token}/api/tags",
    "/x/../k/{token}/api/tags",
    "/v1/k/{token}/chat/completions",
    "/k/{token};x/api/tags",
    "/k/{token}%00/api/tags",
    "/k/{token}%2fapi/tags",
    "http://x:{token}@gw/api/tags",
    "http://gw/k/{token}/api/tags",
]


def target(place: str, token: str) -> str:
    """The target of a request with a token in this place."""
    return place.format(token=token, escaped=urllib.parse.quote(token, safe="").replace("-", "%2D"))


BROKEN_HTTP = [
    "GET /k/{token}/api/tags nonsense HTTP/1.1\r\nHost: gw\r\n\r\n",
    "GET /k/{token}/api/tags HTTP/9.9\r\nHost: gw\r\n\r\n",
    "G@T /k/{token}/ HTTP/1.1\r\nHost: gw\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: gw\r\nAuthorization Bearer {token}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: gw\r\nAuthorization : Bearer {token}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: gw\r\n{token}: x y\r\nAuth {token}: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: {token} {token}\r\n\r\n",
    (
        "POST /api/chat HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: {token}\r\n\r\n"
    ),
    (
        "POST /api/chat HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {token}\r\nTransfer-Encoding: chunked\r\n\r\n{token}\r\n"
    ),
    "POST /api/chat HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {token}\r\nContent-Length: {token}\r\n\r\n",
    (
        "POST /api/chat HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {token}\r\nContent-Length: 9\r\nExpect: {token}\r\n\r\n"
    ),
]

# Prompts and answers.


def _spoken(text: str) -> dict[str, Any]:
    return native_chat.piece(text, model=MODEL)


_DONE = native_chat.done(model=MODEL)


def upstream_scripts(secret: str) -> dict[str, do.Script]:
    """What an upstream may do with a prompt that it was told, or say by itself."""
    half = b'{"message":{"content":"' + secret.encode() + b"\n"
    return {
        "answer": [do.Lines([_spoken(secret), _DONE])],
        "400": [do.Json({"error": f"cannot do {secret}"}, 400)],
        "500": [do.Json({"error": f"cannot do {secret}"}, 500)],
        "error line": [do.Lines([_spoken(secret), {"error": f"died of {secret}"}])],
        "half a line": [do.Lines([_spoken(secret), half])],
        "another shape": [do.Lines([_spoken(secret), {"message": secret, "done": True}])],
        "cut": [do.Lines([_spoken(secret)]), do.Cut()],
        "reset": [do.Lines([_spoken(secret)]), do.Reset()],
        "page": [do.Whole(f"<html>{secret}</html>".encode(), 502, {"Content-Type": "text/html"})],
        "no JSON": [do.Whole(secret.encode(), 200, {"Content-Type": "application/json"})],
        "no HTTP": [do.Send(f"HTTP/1.1 {secret}\r\n{secret}\r\n\r\n".encode()), do.Cut()],
        "redirect": [
            do.Json({"error": "go there"}, 302, {"Location": f"http://127.0.0.1:1/{secret}"})
        ],
    }


BAD_BODIES = [
    '{"model":"m","messages":"SECRET"}',
    '{"model":"m","prompt":["SECRET"]}',
    '{"model":"m","messages":[{"role":"user","content":"SECRET"}],"temperature":"SECRET"}',
    '{"model":"m","messages":[{"role":"user","content":"SECRET"}]',
    '{"model":"m","SECRET":1,"messages":[]',
    '["SECRET"]',
    '{"model":"m","messages":[{"role":"user","content":[{"type":"SECRET"}]}]}',
    '{"model":"m","messages":[{"role":"SECRET","content":"SECRET"}]}',
    '{"model":"m","messages":[],"keep_alive":"SECRET"}',
    '{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"SECRET"}],"SECRET":"SECRET"}',
    '{"model":"m","max_tokens":9,"system":"SECRET","messages":[{"role":"user","content":"SECRET"}],"thinking":"SECRET"}',
    '{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"tool_result","content":"SECRET"}]}]}',
    '{"model":"m","input":[{"type":"SECRET","text":"SECRET"}]}',
    '{"model":"m","input":"SECRET","instructions":5,"previous_response_id":"SECRET"}',
]
