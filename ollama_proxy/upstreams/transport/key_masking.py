"""A transport that masks the key of its requests in the answers: an auth proxy in front of an
Ollama server may quote it in an error, and native answers are forwarded to the client unchanged."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from urllib.parse import quote

from ollama_proxy.upstreams.base import Headers, Reply, Transport, UpstreamRequest
from ollama_proxy.upstreams.call import Call

#: Shortest form of a key that is masked, in bytes: in errors, and in answers, which may well
#: contain a word such as `ollama` that serves as a key.
MIN_IN_ERRORS, MIN_IN_ANSWERS = 3, 8

#: Shortest piece of base64 that belongs to one key and to nothing else.
_MIN_BASE64 = 8


class MaskedTransport:
    """Another transport; in its answers `secret` is masked. See Transport."""

    def __init__(self, transport: Transport, secret: str) -> None:
        self._transport = transport
        self.connections, self.close = transport.connections, transport.close
        self._in_errors = secret_forms(secret, MIN_IN_ERRORS)
        self._in_answers = secret_forms(secret, MIN_IN_ANSWERS)

    def open(
        self, request: UpstreamRequest, call: Call, *, head_wait_s: float | None = None
    ) -> Reply:
        """See Transport."""
        reply = self._transport.open(request, call, head_wait_s=head_wait_s)
        return MaskedReply(reply, in_errors=self._in_errors, in_answers=self._in_answers)


class MaskedReply:
    """Another reply with every form of a secret replaced by as many asterisks, so that its
    length stays. See Reply."""

    def __init__(
        self, reply: Reply, *, in_errors: Sequence[bytes], in_answers: Sequence[bytes]
    ) -> None:
        self._reply = reply
        self.wait_head, self.close = reply.wait_head, reply.close
        self._in_errors, self._in_answers = in_errors, in_answers
        #: The end of what has arrived, if it may be the beginning of a secret.
        self._held = b""

    @property
    def status(self) -> int:
        """See Reply."""
        return self._reply.status

    @property
    def headers(self) -> Headers:
        """See Reply."""
        masked = (
            (name, _mask(value.encode("latin-1"), self._in_errors))
            for name, value in self._reply.headers
        )
        return [(name, value.decode("latin-1")) for name, value in masked]

    def read_some(self, wait_s: float | None = None) -> bytes | None:
        """See Reply; at most the length of a secret is held back until what follows is there."""
        forms = self._in_errors if self.status >= 400 else self._in_answers
        while data := self._reply.read_some(wait_s):
            masked = _mask(self._held + data, forms)
            # How many of the last bytes are the beginning of a form that is not complete yet. If a
            # line is complete, none: no key has a line end.
            unsure = 0
            for form in () if masked.endswith(b"\n") else forms:
                start = masked.find(form[:1], max(0, len(masked) - len(form) + 1))
                while start >= 0 and not form.startswith(masked[start:]):
                    start = masked.find(form[:1], start + 1)
                if start >= 0:
                    unsure = max(unsure, len(masked) - start)
            kept = len(masked) - unsure
            self._held = masked[kept:]
            if kept:
                return masked[:kept]
        if data is None:
            return None
        rest, self._held = self._held, b""
        return rest


def _mask(data: bytes, forms: Sequence[bytes]) -> bytes:
    for form in forms:
        if form in data:
            data = data.replace(form, b"*" * len(form))
    return data


def secret_forms(secret: str, shortest: int) -> tuple[bytes, ...]:
    """The ways in which a secret may be quoted, the longest first; none that is shorter
    than `shortest` bytes."""
    raw = secret.encode("latin-1", "replace")
    texts = {secret, quote(secret, safe=""), quote(secret, safe="").lower(), quote(secret)}
    texts |= {
        json.dumps(text, ensure_ascii=ascii)[1:-1]
        for text in tuple(texts)
        for ascii in (True, False)
    }
    texts |= {text.replace("/", "\\/") for text in tuple(texts)}
    # Go escapes these letters in JSON.
    texts |= {
        text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"})
        for text in tuple(texts)
    }
    forms = {text.encode("utf-8", "replace") for text in texts} | {raw}
    # Base64 of the secret after any text, such as the user name of HTTP Basic, without the edges
    # that depend on the surrounding text.
    for offset in range(3):
        core = base64.b64encode(bytes(offset) + raw)[
            (0, 2, 3)[offset] : (offset + len(raw)) * 8 // 6
        ]
        if len(core) >= _MIN_BASE64:
            forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return tuple(sorted((form for form in forms if len(form) >= shortest), key=len, reverse=True))
