"""One client call and everything that was decided on it; each step of the
call fills in its part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from flask import request

from ollama_proxy.clock import SYSTEM_CLOCK
from ollama_proxy.coordination import Admission, Ticket
from ollama_proxy.gateway.rendering import ClientDialect
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.gateway.trace import Trace
from ollama_proxy.hub import NO_USAGE, Json, Usage
from ollama_proxy.policy import Principal
from ollama_proxy.upstreams import Call, Node

EXCHANGE_KEY = "ollama_proxy.exchange"

#: Fields of the exchange that are reported to the client, and the header of each.
DIAGNOSTIC_HEADERS = {
    name: f"X-Ollama-Proxy-{name.capitalize()}"
    for name in ("ignored", "approximated", "clamped", "truncated", "attempts", "partial", "queue")
}


#: States of attempts that failed because of their upstream.
FAILED_STATES = frozenset({"upstream_error", "timeout"})


@dataclass(slots=True, eq=False)
class Attempt:
    """One request to one upstream, and its outcome. An exchange has several if an attempt was
    repeated, or if several answers were asked for."""

    upstream: str
    #: As `Exchange.state`; "" while it runs. `aborted`: the gateway stopped it, so the
    #: upstream did not fail.
    state: str = ""
    #: The stable slug of what went wrong.
    error: str = ""
    #: Of its span, if the exchange has a trace.
    span_id: int = 0
    #: Another attempt was made in its place.
    is_repeated: bool = False
    #: When it began, counted from the beginning of the exchange, and its duration, in seconds.
    #: These and the next ones are 0 or None unless the exchange is accounted.
    began_s: float = 0.0
    took_s: float = 0.0
    #: Seconds of GPU time, as the server measured them, or else its duration; those of them that
    #: loaded the model; and what they cost. None: it loaded nothing, its server has no price.
    gpu_s: float = 0.0
    load_s: float | None = None
    gpu_cost: float | None = None


#: Called with an exchange that is over; records its outcome and changes nothing.
FinishObserver: TypeAlias = Callable[["Exchange"], None]


@dataclass(slots=True, eq=False)
class Exchange:
    #: Sent by the client or made here; goes back as `X-Request-Id`.
    id: str
    method: str
    #: As the client sent it, with the token cut out and without its query.
    path: str
    #: Address of the client, as reported by the trusted proxies.
    client: str
    dialect: ClientDialect
    call: Call
    principal: Principal | None = None
    #: The client's bytes, decoded if they were compressed, and never edited.
    body: bytes = b""
    #: The same bytes, parsed.
    data: dict[str, Json] = field(default_factory=dict)
    #: As the client spells it.
    model: str = ""
    #: That model's route for this caller; None until it is resolved, and for
    #: requests that name no model.
    resolved_model: ResolvedModel | None = None
    #: The upstream's name of the model if it differs; neither answers nor errors show it.
    target: str = ""
    stream: bool = False
    #: Rule of its URL, such as `/v1/models/<path:name>`; "" if no route has the path.
    route: str = ""
    #: Seconds since 1970; durations are counted from `call.started`.
    started_at: float = field(default_factory=SYSTEM_CLOCK.time)
    #: Its row in the records; "" if it has none.
    row_id: str = ""
    #: Whether durations and costs of its attempts are taken: for its row, or its limits.
    is_accounted: bool = False
    #: None: it is not traced.
    trace: Trace | None = None
    #: The end user, as a header names it that the token's `users` trusts, or else the body.
    user: str | None = None
    #: The same if the header names it: only a program that the operator trusts decides whose
    #: share a request takes.
    trusted_user: str | None = None
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
    #: Request fields that the chosen upstream has no parameter for, so that only the prompt asks
    #: for them, and fields that the answer does not follow.
    approximated: tuple[str, ...] = ()
    #: Values of the request that the operator's limits have changed, such as `num_ctx=8192`.
    clamped: tuple[str, ...] = ()
    #: What was cut: "prompt", "answer".
    truncated: tuple[str, ...] = ()
    #: Whether a passed-through answer of so many tokens, with its prompt, exceeded the
    #: context; None: not checked.
    is_outgrown: Callable[[int], bool] | None = None
    #: The nodes that were tried and their outcomes; empty if the first attempt was the only one.
    attempts: tuple[str, ...] = ()
    #: Upstreams whose part of a list is outdated or missing.
    partial: tuple[str, ...] = ()
    #: How long it waited for a slot, in seconds (None: it did not), and the same for the
    #: client: `waited=4.2s`.
    queued_s: float | None = None
    queue: tuple[str, ...] = ()
    #: What it waits for now, for the comments of its stream; "" if it does not.
    progress: str = ""
    #: Its share of slots and limits; None: it needs neither.
    admission: Admission | None = None
    #: Its requests for slots that wait, and the nodes that each may get.
    waits: dict[Ticket, list[Node]] = field(default_factory=dict)
    #: What the server measured of a passed-through native answer, by Ollama's names.
    metrics: Mapping[str, Json] = field(default_factory=dict)
    #: Called in this order when the exchange is over and everything that it held is released.
    finish_observers: list[FinishObserver] = field(default_factory=list)
    _is_over: bool = False
    _releases: list[Callable[[], None]] = field(default_factory=list)

    def on_finish(self, release: Callable[[], None]) -> None:
        """Runs `release` exactly once when the exchange is over, last added first; at once if it is
        over already: an answer may begin just as its client leaves."""
        if self._is_over:
            release()
        else:
            self._releases.append(release)

    def finish(self) -> None:
        """Releases everything that the exchange holds, and then calls the observers. A
        second call does nothing."""
        if not self._is_over:
            self._is_over = True
            self._finish()

    def _finish(self) -> None:
        try:
            while self._releases:
                self._releases.pop()()
        finally:
            if self._releases:
                self._finish()  # one has failed; the others are released all the same
            else:
                for observe in self.finish_observers:
                    observe(self)

    def begin_attempt(self, upstream: str) -> Attempt:
        """Adds the record of a further attempt."""
        self.tried.append(Attempt(upstream))
        return self.tried[-1]

    @property
    def caller(self) -> str:
        """The owner of the request's share of a limited resource: the token, or the address
        if there are no tokens."""
        return (
            f"token {self.principal.name}"
            if self.principal and self.principal.digest
            else self.client
        )

    @property
    def upstream(self) -> str:
        """The upstreams that were chosen in the end, each once, separated by commas."""
        if len(self.tried) == 1:  # most have one
            return self.tried[0].upstream
        return ",".join(dict.fromkeys(each.upstream for each in self.tried if not each.is_repeated))

    @property
    def failed_upstream(self) -> str:
        """The chosen upstreams that failed; all of them if none is known to have failed."""
        failed = [
            each.upstream
            for each in self.tried
            if each.state in FAILED_STATES and not each.is_repeated
        ]
        return ",".join(dict.fromkeys(failed)) or self.upstream

    def note_user(self, *named: Json) -> None:
        """Notes the first of these names from the body as that of the user, unless
        a header has named it."""
        for name in named:
            if not self.user and isinstance(name, str):
                self.user = name

    def note_truncated(self, part: str) -> None:
        """Notes that "prompt" or "answer" was cut."""
        self.truncated = tuple(sorted({*self.truncated, part}, reverse=True))

    def count_sent(self, size: int) -> None:
        """Counts `size` bytes of the body that are sent now."""
        if self.first_byte_at is None:
            self.first_byte_at = self.call.clock.monotonic()
        self.bytes_out += size


def current_exchange() -> Exchange:
    """The exchange of the request being handled."""
    return cast(Exchange, request.environ[EXCHANGE_KEY])
