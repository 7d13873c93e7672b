"""The kinds of upstreams, and the fleet of the settings; running upstreams are reused."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.errors import ConfigError
from ollama_proxy.settings import (
    PRESETS,
    Preset,
    Settings,
    UpstreamSettings,
    effective_upstreams,
    hidden_upstreams,
    shown_path,
)
from ollama_proxy.upstreams.anthropic import upstream as anthropic
from ollama_proxy.upstreams.base import TransportFactory, Upstream
from ollama_proxy.upstreams.demo import transport as demo
from ollama_proxy.upstreams.fleet.model_index import Fleet
from ollama_proxy.upstreams.fleet.model_list import OLLAMA_PROTOCOLS
from ollama_proxy.upstreams.fleet.node import Node
from ollama_proxy.upstreams.litellm import upstream as litellm
from ollama_proxy.upstreams.ollama import upstream as ollama
from ollama_proxy.upstreams.openai import upstream as openai
from ollama_proxy.upstreams.transport.session import HttpTransport

log = logging.getLogger(__name__)

#: Gets the settings of an upstream, its key, and what makes transports to its server.
Builder = Callable[[UpstreamSettings, str | None, TransportFactory], Upstream]

#: By protocol; the other properties of a kind are in the table of presets.
BUILDERS: dict[str, Builder] = {
    "anthropic": anthropic.build,
    "demo": demo.build,
    "litellm": litellm.build,
    "ollama": ollama.build,
    "openai": openai.build,
}


def register_kind(name: str, build: Builder, preset: Preset) -> None:
    """Adds a kind of upstream to those of the package: `kind: <name>` in the configuration."""
    PRESETS[name] = preset
    BUILDERS[preset.protocol] = build


def build_fleet(
    settings: Settings,
    environ: Mapping[str, str] = os.environ,
    running: Fleet | None = None,
    *,
    open_transport: TransportFactory | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Fleet:
    """The fleet of these settings, with the nodes of the `running` one whose server is the
    same: they keep their connections and their state. An upstream whose key is missing is
    hidden. `open_transport`: makes the transports to their servers; None: over sockets. Raises
    ConfigError."""
    declared = effective_upstreams(settings)
    hidden = hidden_upstreams(settings, environ)
    open_transport = open_transport or partial(HttpTransport, clock=clock)
    nodes: list[Node] = []
    reusable = {_server(node.declared, environ): node for node in running.nodes} if running else {}
    try:
        for each in declared:
            if each.name in hidden:
                continue
            if (node := reusable.get(_server(each, environ))) is not None:
                node.configure(each)
            else:
                upstream = BUILDERS[each.protocol](each, each.key(environ), open_transport)
                node = Node(each, upstream, clock=clock)
            nodes.append(node)
    except ConfigError as error:
        where = f"{shown_path(settings.source)}: " if settings.source else ""
        raise ConfigError([where + each for each in error.complaints]) from error
    return Fleet(nodes, hidden, clock=clock)


def log_hidden(settings: Settings) -> None:
    """Logs which upstreams are hidden, and why."""
    for name, reason in hidden_upstreams(settings).items():
        log.warning("upstream_hidden", extra={"fields": {"upstream": name, "reason": reason}})


def _server(declared: UpstreamSettings, environ: Mapping[str, str]) -> tuple[object, ...]:
    """The settings that identify a server."""
    same = (declared.name, declared.kind, declared.base_url, declared.key(environ))
    # Providers take their models and their profile from the settings.
    return (
        same
        if declared.protocol in OLLAMA_PROTOCOLS
        else (*same, repr(declared.models), repr(declared.profile))
    )
