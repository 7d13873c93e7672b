"""Upstreams that only know what they have, for tests of what stands in front of
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import UpstreamConnect
from ollama_proxy.hub import Answer, ChatRequest, Event, Json, Model, collect
from ollama_proxy.settings.upstreams import PRESETS, Timeouts, UpstreamModel, UpstreamSettings
from ollama_proxy.upstreams.base import Api, Connections, EventStream, Upstream
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.fleet.node import Node

LIMITS = Timeouts(connect_s=2, first_byte_s=2, idle_s=2, total_s=5)


def new_call(clock: Clock = SYSTEM_CLOCK) -> Call:
    """A call with the limits as shipped."""
    return Call(Timeouts(), clock)


class Stock(Upstream):
    """What an upstream says that it has; `down`: it can't be reached; `hangs_s`: it
    takes so long to say it."""

    def __init__(self, name: str, models: Sequence[str], kind: str) -> None:
        super().__init__(name)
        self.connections = Connections(active=1, idle=2)
        self.has = list(models)
        self.has_loaded: list[str] = []
        self.down = False
        self.hangs_s = 0.0
        self.asked = 0
        self.is_closed = False
        self.takes_any_model = kind == "litellm"
        self.api = Api.OLLAMA if kind in ("ollama", "demo") else None

    def chat(
        self, request: ChatRequest, call: Call, *, heartbeat_s: float | None = None
    ) -> EventStream:
        """No test asks for one."""
        raise NotImplementedError

    def models(self, call: Call) -> list[Model]:
        """See Upstream.models."""
        self.asked += 1
        call.clock.sleep(self.hangs_s)
        if self.down:
            raise UpstreamConnect
        return [Model(name, 0, self.name) for name in self.has]

    def loaded(self, call: Call) -> list[Mapping[str, Json]]:
        """See Upstream.loaded."""
        return [{"name": name} for name in self.has_loaded]

    def version(self, call: Call) -> str:
        """See Upstream.version."""
        self.models(call)
        return "1"

    def close(self) -> None:
        """See Upstream.close."""
        self.is_closed = True


def node(
    name: str,
    *models: str,
    kind: str = "ollama",
    learnt: bool = True,
    clock: Clock = SYSTEM_CLOCK,
    **declared: Any,
) -> Node:
    """A node whose lists are known (`learnt`), unless nobody has asked it yet."""
    declared.setdefault("base_url", PRESETS[kind].base_url or f"http://{name}")
    known = {each: UpstreamModel(id=own) for each, own in declared.pop("mapped", {}).items()}
    settings = UpstreamSettings(name=name, kind=kind, models=known, **declared)
    made = Node(settings, Stock(name, models, kind), clock=clock)
    if learnt:
        made.models.fetch(new_call(clock))
    return made


def stock(of: Node) -> Stock:
    """What stands behind a node."""
    return cast(Stock, of.upstream)


def batches(upstream: Upstream, asked: Any, call: Call, **options: Any) -> list[Sequence[Event]]:
    """All that an upstream says to a chat or a completion, as it comes."""
    ask = upstream.chat if isinstance(asked, ChatRequest) else upstream.generate
    with closing(ask(asked, call, **options)) as events:
        return list(events)


def answered(upstream: Upstream, asked: Any, call: Call, **options: Any) -> Answer:
    """The same as one answer."""
    [answer] = collect(
        event for batch in batches(upstream, asked, call, **options) for event in batch
    )
    return answer
