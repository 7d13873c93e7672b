"""What the gateway tells of itself: whether it is well, and to those who may know, what it has and
how each upstream is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from operator import attrgetter

from ollama_proxy.errors import GatewayError
from ollama_proxy.gateway import Exchange, Gateway
from ollama_proxy.hub import Json, Model
from ollama_proxy.policy import MANAGE, READ
from ollama_proxy.upstreams import HEALTH_CHECK_TIMEOUTS, Call, Health
from ollama_proxy.version import VERSION

#: Conditions in which requests go to an upstream.
_ACTIVE = ("up", "half-open")

#: What the state of an upstream has only for callers who may manage.
_FOR_OPERATORS = {"loaded", "failing_models", "reason"}


def status_document(
    gateway: Gateway, health: Health, exchange: Exchange, *, well: str, started_at: float
) -> dict[str, Json]:
    """Return the document of `/` and `/health`. `well`: the status when an upstream can be used;
    `started_at`: the monotonic time at which the process began. Providers and models are for
    callers with a token, and only those that the token may use."""
    usable = [name for name, state in health.states().items() if state.usable]
    fleet = gateway.fleet
    # Where there is no Ollama server at all, whatever takes its place counts.
    boxes = [box.name for box in fleet.ollama_nodes]
    has_ollama = any(name in usable for name in boxes) if boxes else bool(usable)
    uptime_s = int(gateway.clock.monotonic() - started_at)
    document: dict[str, Json] = {
        "status": well if usable else "degraded",
        "ollama": "connected" if has_ollama else "disconnected",
        "api": "openai-compatible",
        "service": "ollama-proxy",
        "version": VERSION,
        "uptime": duration(uptime_s),
        "uptime_s": uptime_s,
    }
    if exchange.principal and READ in exchange.principal.scopes:
        active = [
            node.name for node in fleet.nodes if node.name in usable and node.condition in _ACTIVE
        ]
        document["providers"] = {
            "available": len(fleet.nodes) + len(fleet.hidden),
            "active": active,
        }
        document["models"] = _models(gateway, exchange, usable)
    return document


def duration(seconds: int) -> str:
    """A time as people write it: `3d 4h 5m`, its two or three largest parts."""
    minutes, hours, days = seconds // 60 % 60, seconds // 3600 % 24, seconds // 86400
    if days:
        return f"{days}d {hours}h {minutes}m"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {seconds % 60}s"


def _models(gateway: Gateway, exchange: Exchange, usable: list[str]) -> dict[str, Json]:
    """How many models the caller's lists show, and how many each upstream has of
    those that it may use."""
    fleet, lists = gateway.fleet, gateway.lists(exchange)
    listed: list[Model] = []
    if not fleet.is_single:
        listed = [model for _, model in fleet.models()]
    elif (node := fleet.nodes[0]).name in usable:
        with suppress(GatewayError):
            # Nobody else asks for the list of the only server.
            node.models.fetch(Call(HEALTH_CHECK_TIMEOUTS, gateway.clock))
            listed = (
                [model for _, model in node.models.listing.models.values()]
                if node.models.listing
                else []
            )
    shown = lists.filter(listed, attrgetter("name"), lambda model, name: replace(model, name=name))
    if fleet.is_single:
        return {"total": len(shown), "byProvider": {fleet.nodes[0].name: len(shown)}}
    counts: dict[str, int] = {}
    for node in fleet.nodes:
        names = node.models.listing.models if node.models.listing else ()
        counts[node.name] = sum(lists.may_use(f"{node.name}/{name}") for name in names)
    return {"total": len(shown), "byProvider": counts}


def upstream_details(gateway: Gateway, exchange: Exchange) -> dict[str, Json]:
    """The state of each upstream, by its name, as this worker sees it. Callers with the scope
    `manage` also get the reasons, problems (faults to fix in servers that work, or in sharing
    them), and what runs and waits on the boxes."""
    states = gateway.describe_upstreams()
    if exchange.principal is None or MANAGE not in exchange.principal.scopes:
        shown = {
            name: {key: state[key] for key in state.keys() - _FOR_OPERATORS}
            for name, state in states.items()
        }
        return {"upstreams": shown}
    problems: list[Json] = [*gateway.list_version_problems(), *gateway.list_problems()]
    return {"upstreams": states, "problems": problems, **gateway.describe_sharing()}
