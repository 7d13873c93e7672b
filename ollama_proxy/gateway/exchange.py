"""One client call and everything that was decided on it: it travels, and each step fills in its part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from flask import request

from ollama_proxy.gateway.rendering import ClientDialect
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.hub import NO_USAGE, Json, Usage
from ollama_proxy.policy import Principal
from ollama_proxy.upstreams import Call

EXCHANGE_KEY = "ollama_proxy.exchange"

#: What the client is told of its request: the field of the exchange, and the header that says it.
DIAGNOSTIC_HEADERS = {
    name: f"X-Ollama-Proxy-{name.capitalize()}"
    for name in ("ignored", "approximated", "clamped", "truncated", "attempts", "partial")
}


#: States of attempts that failed by the fault of their upstream.
FAILED_STATES = frozenset({"upstream_error", "timeout"})


@dataclass(slots=True, eq=False)
class Attempt:
    """One request to one upstream, and its outcome. An exchange has several if an attempt was repeated, or if several
    answers were asked for."""

    upstream: str
    #: As that of an exchange; "" while it runs. `aborted`: it was stopped from here, so it is nobody's failure.
    state: str = ""
    #: The stable slug of what went wrong.
    error: str = ""
    #: Another attempt was made in its place.
    is_repeated: bool = False


#: Gets an exchange when it is over: it records what became of it, and changes nothing.
FinishObserver: TypeAlias = Callable[["Exchange"], None]


@dataclass(slots=True, eq=False)
class Exchange:
    #: Sent by the client or made here; goes back as `X-Request-Id`.
    id: str
    method: str
    #: As the client sent it, with the token cut out and without its query.
    path: str
    #: Address of the client, as the trusted proxies tell it.
    client: str
    dialect: ClientDialect
    call: Call
    principal: Principal | None = None
    #: The client's bytes, never edited.
    body: bytes = b""
    #: The same, read.
    data: dict[str, Json] = field(default_factory=dict)
    #: As the client spells it.
    model: str = ""
    #: Where that model is, for this caller; None until it is resolved, and for requests that are not about one.
    resolved_model: ResolvedModel | None = None
    #: What its upstream calls it, where that is another name; neither answers nor errors say so.
    target: str = ""
    stream: bool = False
    #: Whom the client says that it asks for.
    user: str | None = None
    #: In the order in which they began.
    tried: list[Attempt] = field(default_factory=list)
    status: int = 0
    #: ok, client_gone, upstream_error, timeout, refused or aborted.
    state: str = "ok"
    #: The stable slug of what went wrong.
    error: str = ""
    usage: Usage = NO_USAGE
    #: The upstream reported no usage: this one is the gateway's own estimate.
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
    #: Called in their order when the exchange is over and everything that it held is released.
    finish_observers: list[FinishObserver] = field(default_factory=list)
    _is_over: bool = False
    _releases: ExitStack = field(default_factory=ExitStack)

    def on_finish(self, release: Callable[[], None]) -> None:
        """Runs `release` when the exchange is over, last added first, exactly once and whatever happened; at once where
        it is over already: an answer may begin in the very moment in which its client leaves."""
        if self._is_over:
            release()
        else:
            self._releases.callback(release)

    def finish(self) -> None:
        """The exchange is over: everything that it held is released, and then the observers are called. A second call
        does nothing."""
        if self._is_over:
            return
        self._is_over = True
        try:
            self._releases.close()
        finally:
            for observe in self.finish_observers:
                observe(self)

    def begin_attempt(self, upstream: str) -> Attempt:
        """The record of a further attempt."""
        self.tried.append(Attempt(upstream))
        return self.tried[-1]

    @property
    def caller(self) -> str:
        """Whose share of something a request takes: its token's, or its address's if there are no tokens."""
        return f"token {self.principal.name}" if self.principal and self.principal.digest else self.client

    @property
    def upstream(self) -> str:
        """The upstreams that were chosen in the end, each once, separated by commas."""
        return _names(each for each in self.tried if not each.is_repeated)

    @property
    def failed_upstream(self) -> str:
        """Those of them that failed; all of them if none is known to have."""
        failed = (each for each in self.tried if each.state in FAILED_STATES and not each.is_repeated)
        return _names(failed) or self.upstream

    def note_truncated(self, part: str) -> None:
        """Notes that "prompt" or "answer" was cut."""
        self.truncated = tuple(sorted({*self.truncated, part}, reverse=True))

    def sent(self, size: int) -> None:
        """`size` bytes of the body go out now."""
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self.bytes_out += size


def _names(attempts: Iterable[Attempt]) -> str:
    return ",".join(dict.fromkeys(each.upstream for each in attempts))


def current_exchange() -> Exchange:
    """The exchange of the request being handled."""
    return cast(Exchange, request.environ[EXCHANGE_KEY])
