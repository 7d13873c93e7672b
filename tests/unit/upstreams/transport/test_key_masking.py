"""An answer that quotes the key it was asked with reaches nobody, however the
key is written and cut."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote

from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams.base import Connections, Headers, UpstreamRequest
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.transport.key_masking import MaskedReply, MaskedTransport
from tests.rig.tables import each_row

KEY = 'ab/CD+ef<gh>"ij&0123456789'
CALL = Call(Timeouts())


class Scripted:
    """A reply made of these pieces; None is a silence."""

    def __init__(
        self, pieces: Iterable[bytes | None], status: int = 401, headers: Headers = ()
    ) -> None:
        self._pieces = iter([*pieces, b"", b""])
        self.status, self.headers = status, headers

    def wait_head(self, wait_s: float | None = None) -> bool:
        return True

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        return next(self._pieces)

    def close(self) -> None:
        pass


class ScriptedTransport:
    """A transport with one reply."""

    def __init__(self, reply: Scripted) -> None:
        self._reply = reply
        self.connections = Connections()

    def open(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> Scripted:
        return self._reply

    def close(self) -> None:
        pass


def masked(reply: Scripted, key: str = KEY) -> MaskedReply:
    opened = MaskedTransport(ScriptedTransport(reply), key).open(
        UpstreamRequest("GET", "/api/tags"), CALL
    )
    assert isinstance(opened, MaskedReply)
    return opened


def read(reply: MaskedReply) -> bytes:
    return b"".join(iter(reply.read_some, b""))


WRITTEN = {
    "plain": KEY,
    "JSON": json.dumps(KEY),
    "JSON with escaped slashes": json.dumps(KEY).replace("/", "\\/"),
    "JSON as Go writes it": json.dumps(KEY)
    .replace("<", "\\u003c")
    .replace(">", "\\u003e")
    .replace("&", "\\u0026"),
    "in an address": quote(KEY, safe=""),
    "in a path": quote(KEY),
    "in an address, lower case": quote(KEY, safe="").lower(),
    "after the scheme": f"Bearer {KEY}",
}
BASIC = [
    base64.b64encode(f"{user}:{KEY}".encode()).decode()
    for user in ("", "a", "ab", "abc", "operator")
]


@each_row("text", WRITTEN.values())
def test_the_key_is_masked_at_its_length_wherever_it_is_cut(text: str) -> None:
    body = f'{{"error": "denied: {text}."}}'.encode()
    whole = read(masked(Scripted([body])))
    assert len(whole) == len(body)
    assert b"ef" not in whole.replace(b"denied", b"")
    assert whole.startswith(b'{"error": "denied: ')
    for place in range(1, len(body)):
        assert read(masked(Scripted([body[:place], body[place:]]))) == whole
    assert read(masked(Scripted([body[n : n + 1] for n in range(len(body))]))) == whole


@each_row("encoded", [*BASIC, *(text.replace("+", "-").replace("/", "_") for text in BASIC)])
def test_the_key_is_masked_inside_base64(encoded: str) -> None:
    shown = read(masked(Scripted([f'{{"error": "bad Basic {encoded}"}}'.encode()]))).decode()
    left = shown.removeprefix('{"error": "bad Basic ').removesuffix('"}').strip("=")
    assert "*" * (len(KEY) * 4 // 3 - 4) in left
    assert "CD+ef" not in base64.b64decode(left.replace("*", "A") + "==").decode("latin-1")


def test_what_only_begins_like_the_key_comes_whole() -> None:
    body = [KEY[:9].encode(), b" and ", KEY[:20].encode()]
    assert read(masked(Scripted(body))) == b"".join(body)


def test_a_silence_is_passed_on_while_something_is_held_back() -> None:
    reply = masked(Scripted([b"x" + KEY[:5].encode(), None, KEY[5:].encode() + b"y"]))
    assert [reply.read_some(), reply.read_some(), reply.read_some()] == [
        b"x",
        None,
        b"*" * len(KEY) + b"y",
    ]


def test_lines_of_a_stream_are_not_held_back() -> None:
    line = b'{"message":{"content":"ab/"},"done":false}\n'
    assert masked(Scripted([line, line], status=200)).read_some() == line


def test_an_error_inside_a_stream_is_masked_too() -> None:
    line = json.dumps({"error": f"proxy: {KEY}"}).encode() + b"\n"
    assert b"CD+ef" not in read(
        masked(Scripted([b'{"done":false}\n', line[:30], line[30:]], status=200))
    )


def test_headers_are_masked() -> None:
    reply = masked(
        Scripted([b""], headers=[("x-your-key", f"Bearer {KEY}"), ("content-length", "0")])
    )
    assert reply.headers == [("x-your-key", "Bearer " + "*" * len(KEY)), ("content-length", "0")]


def test_a_key_that_is_only_a_word_is_masked_in_errors_and_not_in_answers() -> None:
    text = b'{"error": "no ollama here"}'
    assert read(masked(Scripted([text]), "ollama")) == b'{"error": "no ****** here"}'
    assert read(masked(Scripted([text], status=200), "ollama")) == text
