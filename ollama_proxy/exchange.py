"""One client call and everything that was decided on it: it travels, and each step fills in its part."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ollama_proxy.hub import Json
from ollama_proxy.policy.auth import Principal
from ollama_proxy.streaming import Call

#: What the client is told of its request: the field of the exchange, and the header that says it.
REMARKS = {
    name: f"X-Ollama-Proxy-{name.capitalize()}"
    for name in ("ignored", "approximated", "clamped", "truncated", "attempts", "partial")
}


@dataclass(slots=True, eq=False)
class Exchange:
    #: Sent by the client or made here; goes back as `X-Request-Id`.
    id: str
    method: str
    #: As the client sent it, with the token cut out and without its query.
    path: str
    #: Address of the client, as the trusted proxies tell it.
    client: str
    #: The error shapes and names that this client understands.
    dialect: str
    call: Call
    #: The client's connection; None where the server doesn't show it.
    socket: Any = None
    principal: Principal | None = None
    #: The client's bytes, never edited.
    body: bytes = b""
    #: The same, read.
    data: dict[str, Json] = field(default_factory=dict)
    #: As the client spells it.
    model: str = ""
    #: What its upstream calls it, where that is another name; neither answers nor errors say so.
    target: str = ""
    stream: bool = False
    #: Whom the client says that it asks for.
    user: str | None = None
    #: The name of the upstream that was chosen.
    upstream: str = ""
    status: int = 0
    #: ok, client_gone, upstream_error, timeout, refused or aborted.
    state: str = "ok"
    #: The stable slug of what went wrong.
    error: str = ""
    #: Tokens; None: not known.
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    #: The upstream gave no counts: these are ours, and only about right.
    estimated: bool = False
    bytes_out: int = 0
    #: Monotonic time of the first byte of the answer's body.
    first_byte_at: float | None = None
    #: Request fields that had no effect on the chosen upstream.
    ignored: tuple[str, ...] = ()
    #: Request fields that the chosen upstream has no switch for, and that the gateway only asks the model to honour.
    approximated: tuple[str, ...] = ()
    #: What the operator's limits made of the request's values, such as `num_ctx=8192`.
    clamped: tuple[str, ...] = ()
    #: What was cut: "prompt", "answer".
    truncated: tuple[str, ...] = ()
    #: Whether a passed-through answer of so many tokens, with its prompt, outgrew the context; None: never asked.
    is_outgrown: Callable[[int], bool] | None = None
    #: Where it was tried, and what came of it; none where the first attempt was the only one.
    attempts: tuple[str, ...] = ()
    #: Upstreams whose part of a list is old, or missing.
    partial: tuple[str, ...] = ()
    _is_over: bool = False
    _finish: ExitStack = field(default_factory=ExitStack)

    def on_finish(self, release: Callable[[], None]) -> None:
        """Runs `release` when the exchange is over, last added first, exactly once and whatever happened; at once where
        it is over already: an answer may begin in the very moment in which its client leaves."""
        if self._is_over:
            release()
        else:
            self._finish.callback(release)

    def finish(self) -> None:
        """The exchange is over: everything that it held is released. A second call does nothing."""
        self._is_over = True
        self._finish.pop_all().close()

    def note_truncated(self, part: str) -> None:
        """Notes that "prompt" or "answer" was cut."""
        self.truncated = tuple(sorted({*self.truncated, part}, reverse=True))

    def sent(self, size: int) -> None:
        """`size` bytes of the body go out now."""
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self.bytes_out += size
