"""One upstream in the fleet: how busy it is, and whether it can be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import (
    GatewayError,
    UpstreamAuthError,
    UpstreamConnect,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.hub import Json
from ollama_proxy.settings import PRESETS, Timeouts, UpstreamSettings
from ollama_proxy.upstreams.base import Upstream
from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.fleet.breaker import Breaker
from ollama_proxy.upstreams.fleet.model_list import OLLAMA_PROTOCOLS, ModelList

#: Failures in a row that open a breaker: failed connections, and failed answers of one model.
UNREACHED_AT_MOST, FAILED_AT_MOST = 4, 5

#: A model that was requested this long ago is loaded, or is being loaded, in seconds.
WARM_S = 120.0

#: How far that mark may lag behind the last request, in seconds: writing it costs
#: more than reading it.
WARM_EXACT_S = 1.0

#: Requests in flight, for each unit of weight, above which another box may as
#: well load the model too.
SATURATED_AT = 4

#: Breakers and times of models that are kept at most, and bytes of each.
MOST_MODELS, MOST_BYTES = 1000, 1 << 20

#: A connection that is refused sooner costs a caller nothing, in seconds.
QUICK_S = 0.1

#: Statuses that only mean that it is busy.
BUSY = frozenset({429, 503, 529})


@dataclass(slots=True, frozen=True)
class State:
    """What the last check found; `reason` is for the operator."""

    usable: bool
    version: str = ""
    reason: str = ""
    #: It has answered, with whatever result.
    reached: bool = True
    #: It refused the connection at once.
    refused: bool = False


class Node:
    """One upstream with its settings, its load and its failures; `models` is what it has."""

    def __init__(
        self, declared: UpstreamSettings, upstream: Upstream, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._clock = clock
        #: Its name in the configuration, and whether it is a server of Ollama's kind, not a
        #: provider. Other settings for the same server change neither.
        self.name, self.is_ollama_node = declared.name, declared.protocol in OLLAMA_PROTOCOLS
        self.upstream = upstream
        self.models = ModelList(declared, upstream)
        self.in_flight = 0
        #: Those of them whose use is accounted, by model.
        self.accounted = Counter[str]()
        #: Monotonic time of its last request.
        self.asked_at = 0.0
        #: Whether it can be reached at all.
        self.connection = Breaker(UNREACHED_AT_MOST, clock=clock)
        #: It has loaded a model since its last check.
        self.has_loaded = False
        #: The last connection failed, but at once.
        self._is_quick = False
        self._failing = BoundedCache[str, Breaker](MOST_MODELS, MOST_BYTES)
        self._warm = BoundedCache[str, float](MOST_MODELS, MOST_BYTES)
        #: What the last check found; None: not checked yet.
        self.state: State | None = None
        self.configure(declared)

    def configure(self, declared: UpstreamSettings) -> None:
        """Applies other settings for the same server; everything known about it stays."""
        self.models.configure(declared)
        self.declared = declared
        #: What it takes, if it speaks OpenAI's API.
        self.profile = declared.spoken

    @property
    def refuses(self) -> bool:
        """Whether it answers, but not as an Ollama server that can be used from here."""
        return self.state is not None and self.state.reached and not self.state.usable

    def takes(self, name: str, *, alone: bool) -> bool:
        """Whether a name without an upstream in front may be one of its models although no
        list has it. If it leads to one address, and is not `alone`, names must be in LiteLLM's
        form: others are mistyped."""
        is_open = (
            alone or self.declared.base_url == PRESETS[self.declared.kind].base_url or "/" in name
        )
        return self.upstream.takes_any_model and is_open

    def timeouts(self, general: Timeouts) -> Timeouts:
        """The timeouts of its requests: its own before the general ones."""
        return general.override(self.declared.timeouts) if self.declared.timeouts else general

    def is_warm(self, name: str) -> bool:
        """Whether this canonical model answers without being loaded first, and has room
        for one more request."""
        if self.in_flight >= SATURATED_AT * self.declared.weight:
            return False
        if self.declared.protocol != "ollama" or name in self.models.loaded:
            return True
        return (self._warm.get(name) or 0.0) > self._clock.monotonic()

    def load(self) -> float:
        """Requests in flight including the next one, relative to its weight;
        higher while it recovers."""
        return (self.in_flight + 1) / (self.declared.weight * self.connection.share())

    def allows(self) -> bool:
        """Whether a new request may be sent to it."""
        return not self.declared.drain and self.connection.allows()

    @property
    def refuses_at_once(self) -> bool:
        """Whether a request costs next to nothing although it is down, and may find it back."""
        return self._is_quick and not self.declared.drain

    def is_failing(self, name: str) -> bool:
        """Whether its last connection failed, its last check found it unusable, or it has failed
        with this model again and again; then one request may try once in a while."""
        breaker = self._failing.get(name)
        is_useless = self.state is not None and not self.state.usable
        return (
            is_useless
            or self.connection.failures > 0
            or (breaker is not None and not breaker.allows())
        )

    def begin(self, name: str) -> Slot:
        """Takes a slot for one request to a canonical model."""
        self.in_flight += 1
        self.asked_at = self._clock.monotonic()
        self.connection.begin()
        if (breaker := self._failing.get(name)) is not None:
            breaker.begin()
        warm_until = self.asked_at + WARM_S
        if (self._warm.get(name) or 0.0) < warm_until - WARM_EXACT_S:
            self._warm.put(name, warm_until)
        return Slot(self, name, self.asked_at)

    def succeeded(self, name: str) -> None:
        """Records that it has answered a request to a model."""
        self.connection.succeeded()
        self._failing.drop(name)

    def failed(self, name: str, error: GatewayError) -> None:
        """Records that a request to a model has failed. An error that only means that it is busy,
        or that the request is at fault, counts as an answer. A timeout is no answer, but a model
        may take its time: health checks decide whether it is reachable."""
        if isinstance(error, UpstreamConnect):
            self._is_quick = error.took_s < QUICK_S
            self.connection.failed()
            return
        if not isinstance(error, UpstreamCut | UpstreamTimeout):
            self.connection.succeeded()
        is_answer = error.status in BUSY or (
            isinstance(error, UpstreamRefused) and error.status < 500
        )
        if (
            isinstance(error, UpstreamError)
            and not isinstance(error, UpstreamAuthError)
            and not is_answer
        ):
            self.record_model_failure(name)

    def lost(self, *, quickly: bool) -> None:
        """Records that a check did not reach it; `quickly`: see refuses_at_once."""
        self._is_quick = quickly
        self.connection.failed(opens=True)

    def record_model_failure(self, name: str) -> None:
        """Records an answer that should have been another one."""
        breaker = self._failing.get(name)
        if breaker is None:
            breaker = Breaker(FAILED_AT_MOST, clock=self._clock)
            self._failing.put(name, breaker)
        breaker.failed()

    @property
    def condition(self) -> str:
        """`draining`, `down`, `half-open`, `up` or, before its first check, `unknown`."""
        if self.declared.drain:
            return "draining"
        if not self.connection.is_closed:
            return {"open": "down", "half-open": "half-open"}[self.connection.state]
        if self.state is None:
            return "unknown"
        return "up" if self.state.usable else "down"

    def describe(self) -> dict[str, Json]:
        """Returns its state for operators."""
        listing = self.models.listing
        return {
            "state": self.condition,
            "kind": self.declared.kind,
            "version": (self.state and self.state.version) or None,
            "models": len(listing.models) if listing else None,
            "in_flight": self.in_flight,
            "loaded": [str(row.get("name")) for row in listing.loaded] if listing else [],
            "failing_models": self.failing_models(),
            "reason": (self.state and self.state.reason) or None,
        }

    def failing_models(self) -> list[str]:
        """Models that it fails with, by their canonical names."""
        return [name for name, breaker in self._failing.items() if not breaker.is_closed]


@dataclass(slots=True, eq=False)
class Slot:
    """A request's slot on a node, released exactly once."""

    node: Node
    model: str
    #: Monotonic time of the request.
    began_at: float
    _is_held: bool = True

    def release(self) -> bool:
        """Releases it; returns False if that was done before."""
        was_held, self._is_held = self._is_held, False
        if was_held:
            self.node.in_flight -= 1
        return was_held
