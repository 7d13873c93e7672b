"""The upstreams of this gateway, built from the settings. This version serves one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ollama_proxy.errors import ConfigError
from ollama_proxy.providers import UpstreamSettings
from ollama_proxy.settings import Settings, effective_upstreams
from ollama_proxy.timeouts import Timeouts
from ollama_proxy.upstreams.base import Upstream
from ollama_proxy.upstreams.demo import DemoTransport
from ollama_proxy.upstreams.ollama import OllamaUpstream
from ollama_proxy.upstreams.transport import HttpTransport

KINDS = ("ollama", "demo")


class Fleet:
    """Every upstream, and which of them a call goes to."""

    def __init__(self, upstreams: Mapping[str, tuple[UpstreamSettings, Upstream]]) -> None:
        self._upstreams = upstreams

    @property
    def upstreams(self) -> list[Upstream]:
        """Every upstream, in the order of the configuration."""
        return [upstream for _, upstream in self._upstreams.values()]

    def choose(self) -> Upstream:
        """The upstream for a call."""
        return next(iter(self._upstreams.values()))[1]

    def timeouts(self, name: str, general: Timeouts) -> Timeouts:
        """The limits that count for an upstream: its own before the general ones."""
        own = self._upstreams[name][0].timeouts
        return general.override(own) if own else general

    def counts(self) -> dict[str, int]:
        """`active` and `idle` connections to all upstreams."""
        counts = [upstream.counts() for upstream in self.upstreams]
        return {key: sum(each[key] for each in counts) for key in ("active", "idle")}

    def close(self) -> None:
        """Closes idle connections now, those in use when they come back."""
        for upstream in self.upstreams:
            upstream.close()


def build_fleet(settings: Settings, environ: Mapping[str, str] = os.environ) -> Fleet:
    """The fleet that the settings ask for; raises ConfigError for what this version can't serve."""
    declared = effective_upstreams(settings)
    _check_servable(declared, settings.origins.get("upstreams", "configuration"))
    return Fleet({each.name: (each, _build(each, environ)) for each in declared})


def _check_servable(declared: Sequence[UpstreamSettings], where: str) -> None:
    if len(declared) > 1:
        raise ConfigError(f"{where}: upstreams: this version serves one upstream, {len(declared)} are configured")
    for each in declared:
        if each.kind not in KINDS:
            raise ConfigError(
                f"{where}: upstreams: the kind '{each.kind}' can't be served by this version; "
                f"it serves {' and '.join(KINDS)}"
            )


def _build(declared: UpstreamSettings, environ: Mapping[str, str]) -> Upstream:
    if declared.kind == "demo":
        return OllamaUpstream(declared.name, DemoTransport())
    key = next((environ[name] for name in declared.key_variables if environ.get(name)), None)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return OllamaUpstream(declared.name, HttpTransport(declared.base_url, headers=headers))
