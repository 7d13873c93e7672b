"""Tries whether a server can be used as an upstream, before or after it is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from ollama_proxy.admin.records import check_not_in_file
from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import BadRequest, ConfigError, GatewayError
from ollama_proxy.hub import Json
from ollama_proxy.settings import (
    Managed,
    Settings,
    Timeouts,
    UpstreamSettings,
    effective_upstreams,
    find_field,
    hidden_upstreams,
    place_of,
    with_managed,
)
from ollama_proxy.texts import Translatable
from ollama_proxy.upstreams import Call, build_fleet, list_faults

#: For the version and the list of models together.
TRIAL_TIMEOUTS = Timeouts(connect_s=2.0, first_byte_s=4.0, idle_s=4.0, total_s=5.0)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a server has answered; `problem` "": it can be used."""

    name: str
    base_url: str
    took_s: float
    version: str = ""
    models: Sequence[str] = ()
    problem: str = ""
    #: Known faults of its version, a sentence each.
    faults: Sequence[str] = ()


def declare(settings: Settings, name: str, value: Mapping[str, Json]) -> UpstreamSettings:
    """The upstream that this entry would be. Raises Conflict if the file defines it,
    BadRequest with what is wrong."""
    check_not_in_file("upstreams", name)
    of_file = [
        each for each in effective_upstreams(settings) if place_of(settings, "upstreams", each.name)
    ]
    alone = replace(settings, upstreams=tuple(of_file))
    merged, skipped = with_managed(alone, Managed(upstreams={name: dict(value)}))
    if skipped:
        raise BadRequest(skipped[0].reason, param=find_field(skipped[0].reason))
    return next(each for each in merged.upstreams if each.name == name)


def try_upstream(
    settings: Settings, declared: UpstreamSettings, *, clock: Clock = SYSTEM_CLOCK
) -> Trial:
    """Asks it for its version and its models, on a connection of its own, in
    five seconds at most."""
    began, alone = clock.monotonic(), replace(settings, upstreams=(declared,))

    def report(version: str = "", models: Sequence[str] = (), problem: str = "") -> Trial:
        faults = tuple(list_faults(version)) if declared.protocol == "ollama" else ()
        took_s = clock.monotonic() - began
        return Trial(declared.name, declared.base_url, took_s, version, models, problem, faults)

    try:
        fleet = build_fleet(alone, clock=clock)
    except ConfigError as error:
        return report(problem=str(error))
    if not fleet.nodes:
        return report(problem="; ".join(hidden_upstreams(alone).values()))
    [node], call = fleet.nodes, Call(TRIAL_TIMEOUTS, clock)
    with closing(fleet):
        try:
            version = node.upstream.version(call)
            node.models.fetch(call)
        except GatewayError as error:
            problem = error.text
            if error.detail:
                problem = Translatable(
                    "%(error)s %(detail)s", error=error.text, detail=error.detail
                )
            return report(problem=problem)
    listing = node.models.listing
    return report(version, sorted(name for name, _ in listing.models.values()) if listing else ())
