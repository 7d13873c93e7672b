"""How requests share slots and limits: who asks for them, with which prompt, and what the client is
told while its request waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import orjson

from ollama_proxy.coordination import (
    Admission,
    BoxSettings,
    CoordinatorClient,
    Flow,
    Position,
    QueueLimits,
    Subject,
    make_records_frame,
)
from ollama_proxy.gateway.accounting import sum_up
from ollama_proxy.gateway.delivery import CHARS_PER_TOKEN
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.hub import Json
from ollama_proxy.policy import ANYONE, Principal
from ollama_proxy.settings import Settings
from ollama_proxy.upstreams import Fleet, Route

#: Beginnings of a conversation that are told apart: a box that has one of them in
#: its cache is preferred.
MAX_PREFIXES = 32

#: The `service_tier` of requests that may wait behind all others, and that of all others.
FLEX, DEFAULT_TIER = "flex", "default"


@dataclass(slots=True, frozen=True)
class Sharing:
    """Begins the admissions of exchanges that need slots or have limits."""

    _coordinator: CoordinatorClient

    def admit(self, exchange: Exchange, resolved: ResolvedModel) -> Admission | None:
        """Returns the admission of an exchange, begun if it needs one; None if it needs
        neither slots nor limits."""
        if exchange.admission is None:
            flow = flow_of(
                exchange.principal or ANYONE,
                exchange.trusted_user,
                is_background=exchange.data.get("service_tier") == FLEX,
            )
            if not (flow.subjects or resolved.route.is_bounded):
                return None
            about = {
                "id": exchange.id,
                "token": exchange.principal.name if exchange.principal else "",
                "user": exchange.user,
                "model": exchange.model,
                "stream": exchange.stream,
            }
            tokens = len(exchange.body) // CHARS_PER_TOKEN
            admission = self._coordinator.begin(exchange.id, flow, tokens=tokens, about=about)
            exchange.admission = admission
            exchange.is_accounted = True
            exchange.on_finish(lambda: admission.end(sum_up(exchange)))
        return exchange.admission


def share(
    coordinator: CoordinatorClient | None, settings: Settings, fleet: Fleet
) -> Sharing | None:
    """Configures the coordinator, and returns what begins the admissions; None if there are neither
    slots nor limits, so that they cost nothing."""
    if coordinator is None:
        return None
    queue, auth = settings.queue, settings.auth
    boxes = {
        node.name: BoxSettings(node.declared.concurrency, node.declared.drain)
        for node in fleet.nodes
    }
    limits = QueueLimits(queue.max_waiting, queue.max_wait_s, queue.swap_patience_s)
    coordinator.configure(
        limits, boxes, settings.records.timezone, make_records_frame(settings.records)
    )
    has_limits = auth.defaults.limits or any(
        each.limits or each.users.limits for each in auth.tokens()
    )
    has_slots = any(node.declared.concurrency for node in fleet.nodes)
    return Sharing(coordinator) if has_limits or has_slots else None


def flow_of(principal: Principal, user: str | None, *, is_background: bool) -> Flow:
    """Returns whose share a request takes: that of its token, or of the user behind it whom a
    trusted header names."""
    name, subjects = principal.name, list[Subject]()
    if principal.limits:
        subjects.append(Subject(f"token:{name}", principal.limits))
    if user:
        name = f"{name}/{user}"
        if principal.user_limits:
            subjects.append(Subject(f"user:{name}", principal.user_limits))
    return Flow(name, principal.weight, is_background or principal.is_background, tuple(subjects))


def tier_of(exchange: Exchange) -> str:
    """Returns the `service_tier` that is used for a request; "" if the request names none."""
    asked, caller = exchange.data.get("service_tier"), exchange.principal
    if asked is None:
        return ""
    return FLEX if asked == FLEX or (caller is not None and caller.is_background) else DEFAULT_TIER


def list_prefixes(data: Mapping[str, Json], route: Route) -> Sequence[tuple[str, int]]:
    """Returns a hash of each beginning of a conversation, and about how many tokens that has; none
    unless several boxes with slots may answer."""
    messages = data.get("messages") or data.get("input")
    if sum([bool(node.declared.concurrency) for node, _ in route.nodes]) < 2:
        return ()
    if not (isinstance(messages, list) and messages and isinstance(messages[0], dict)):
        return ()
    chain, size, prefixes = blake2b(digest_size=8), 0, list[tuple[str, int]]()
    for message in messages:
        encoded = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
        chain.update(encoded)
        size += len(encoded)
        prefixes.append((chain.hexdigest(), size // CHARS_PER_TOKEN))
    return prefixes[-MAX_PREFIXES:]


def describe_wait(position: Position | None) -> str:
    """Returns what a client is told of its place in the queue."""
    if position is None:
        return "waiting"
    place = position.place
    ending = (
        "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    )
    return f"waiting, {place}{ending} of {position.waiting}, about {position.wait_s:.0f} s"
