"""The record of an exchange: one value, made once when it ends. The access log, the records of
usage and the metrics have their figures from it, so they cannot disagree. It has no prompt, no
answer and no secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ollama_proxy.gateway import Exchange, price_of, sum_up
from ollama_proxy.policy import ConfiguredTokens, canonical, show_method

#: Most models that are told apart in sums and metrics, and most spellings of each.
MOST_MODELS, MOST_SPELLINGS = 1000, 4

#: Longest values that clients choose, in characters.
_CLIENT_CHARS, _USER_CHARS, _MODEL_CHARS, _PATH_CHARS = 100, 254, 200, 500


@dataclass(slots=True, eq=False)
class UsageRecord:
    """What is recorded of one exchange; times in milliseconds, counts in tokens, sizes in
    bytes. None: unknown."""

    #: Unique and roughly in the order of beginnings; "" for an exchange without a row: it was not
    #: admitted, or nothing is recorded.
    row_id: str = ""
    #: Its `X-Request-Id`, which clients may choose.
    id: str = ""
    #: Seconds since 1970.
    started_at: float = 0.0
    #: Name of the token; "" without one.
    token: str = ""
    #: The user whom a header or the body names, and the one whom a trusted header
    #: names; "" for nobody.
    user: str = ""
    trusted_user: str = ""
    client: str = ""
    method: str = ""
    path: str = ""
    dialect: str = ""
    #: Rule of its URL, such as `/v1/models/<path:name>`; "" if no route has the path.
    route: str = ""
    #: As the client spells it, and whether sums and metrics may have this name, see KnownModels.
    model: str = ""
    is_known_model: bool = False
    #: The upstream's name of the model if it differs.
    target: str = ""
    #: The upstreams that were chosen in the end, separated by commas.
    upstream: str = ""
    #: Each with upstream, state, error, started_ms (after the beginning of the exchange),
    #: total_ms, gpu_ms, load_ms.
    attempts: list[dict[str, Any]] = field(default_factory=list)
    #: The upstreams that were tried and their outcomes, if the first one was not the last.
    retries: tuple[str, ...] = ()
    stream: bool = False
    status: int = 0
    #: ok, client_gone, upstream_error, timeout, refused or aborted.
    state: str = "ok"
    #: The stable slug of what went wrong.
    error: str = ""
    prompt_tokens: int | None = None
    #: Tokens of the prompt that were read from the upstream's cache, and written to it.
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    #: The counts are the gateway's own estimate.
    estimated: bool = False
    #: Wait for a slot; load of a model that this exchange has caused; first byte; end.
    queue_ms: float | None = None
    load_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float = 0.0
    #: GPU time of all attempts, and the cost of tokens and GPU time. None: nothing was
    #: asked, nothing has a price.
    gpu_ms: float | None = None
    cost: float | None = None
    bytes: int = 0
    #: Values of the request that the operator's limits have changed, and what was
    #: cut: "prompt", "answer".
    clamped: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> UsageRecord:
        """The record of a JSON object, with the defaults for what it lacks; fields of other
        versions are ignored. As JSON, a record is the object of its fields, which orjson writes."""
        known = {name: document[name] for name in _FIELDS if name in document}
        known |= {
            name: tuple(known[name])
            for name in ("retries", "clamped", "truncated")
            if name in known
        }
        return cls(**known)


_FIELDS = tuple(each.name for each in fields(UsageRecord))

#: Takes a record; must not block.
RecordSink = Callable[[UsageRecord], None]


@dataclass(slots=True, eq=False)
class KnownModels:
    """The names of models that may stand in sums and metrics: those that were answered once.
    Clients can spell a name in any number of ways, of which few are taken, so that nobody can fill
    a database or a page with them."""

    _names: set[str] = field(default_factory=set)
    #: How many of them are spellings of the same name.
    _spellings: Counter[str] = field(default_factory=Counter)

    def includes(self, record: UsageRecord) -> bool:
        """Whether the model of a record is one of them, or becomes one; the
        upstream must have it."""
        name = record.model
        if name in self._names:
            return True
        if record.status >= 400 or not record.upstream or record.state == "refused":
            return False
        plain = canonical(name)
        is_new = plain not in self._spellings
        if self._spellings[plain] >= MOST_SPELLINGS or (
            is_new and len(self._spellings) >= MOST_MODELS
        ):
            return False
        self._spellings[plain] += 1
        self._names.add(name)
        return True


@dataclass(slots=True, eq=False)
class Recorder:
    """Makes the record of each exchange that ends, and passes it to its
    sinks; a finish observer."""

    _sinks: Sequence[RecordSink]
    _configured_tokens: ConfiguredTokens
    _known_models: KnownModels = field(default_factory=KnownModels)

    def record(self, exchange: Exchange) -> None:
        """Records an exchange that is over."""
        record = make_record(exchange, self._configured_tokens)
        if exchange.resolved_model is not None:
            record.is_known_model = self._known_models.includes(record)
        for sink in self._sinks:
            sink(record)


def make_record(exchange: Exchange, configured_tokens: ConfiguredTokens) -> UsageRecord:
    """Returns the record of an exchange that ends now, without these tokens."""
    shown, principal = configured_tokens.shown, exchange.principal
    usage, started, first = exchange.usage, exchange.call.started, exchange.first_byte_at
    record = UsageRecord(
        row_id=exchange.row_id,
        id=exchange.id,
        started_at=exchange.started_at,
        token=principal.name if principal else "",
        user=shown(exchange.user, _USER_CHARS) if exchange.user else "",
        trusted_user=shown(exchange.trusted_user, _USER_CHARS) if exchange.trusted_user else "",
        client=shown(exchange.client, _CLIENT_CHARS),
        method=show_method(exchange.method),
        path=shown(exchange.path, _PATH_CHARS),
        dialect=exchange.dialect.name,
        route=exchange.route,
        model=shown(exchange.model, _MODEL_CHARS) if exchange.model else "",
        target=shown(exchange.target, _MODEL_CHARS) if exchange.target else "",
        upstream=exchange.upstream,
        retries=exchange.attempts,
        stream=exchange.stream,
        status=exchange.status,
        state=exchange.state,
        error=exchange.error,
        prompt_tokens=usage.prompt,
        cached_tokens=usage.cached,
        cache_write_tokens=usage.cache_written,
        completion_tokens=usage.completion,
        estimated=exchange.estimated,
        queue_ms=to_ms(exchange.queued_s),
        first_byte_ms=to_ms(first and first - started),
        total_ms=to_ms(exchange.call.clock.monotonic() - started) or 0.0,
        bytes=exchange.bytes_out,
        clamped=exchange.clamped,
        truncated=exchange.truncated,
    )
    if exchange.is_accounted and exchange.tried:
        _add_accounts(record, exchange)
    return record


def _add_accounts(record: UsageRecord, exchange: Exchange) -> None:
    """Adds what the attempts have used."""
    load_s, is_priced = 0.0, price_of(exchange).is_given
    for each in exchange.tried:
        attempt = {
            "upstream": each.upstream,
            "state": each.state,
            "error": each.error,
            "started_ms": round(each.began_s * 1000, 1),
            "total_ms": round(each.took_s * 1000, 1),
            "gpu_ms": round(each.gpu_s * 1000, 1),
            "load_ms": to_ms(each.load_s),
        }
        record.attempts.append(attempt)
        load_s += each.load_s or 0.0
        is_priced = is_priced or each.gpu_cost is not None
    record.load_ms = to_ms(load_s or None)
    if spent := sum_up(exchange):
        record.gpu_ms = to_ms(spent.gpu_s)
        record.cost = spent.cost if is_priced else None


def to_ms(seconds: float | None) -> float | None:
    """Milliseconds, rounded to tenths."""
    return None if seconds is None else round(seconds * 1000, 1)
