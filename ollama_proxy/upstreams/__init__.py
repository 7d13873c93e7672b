"""The servers that run models, each behind the same few methods."""

from ollama_proxy.upstreams.base import EventStream, Reply, Upstream, UpstreamRequest
from ollama_proxy.upstreams.edited import EditedReply
from ollama_proxy.upstreams.fleet import Fleet, build_fleet
from ollama_proxy.upstreams.health import Health
from ollama_proxy.upstreams.shaped import Ask, Asked, opened

__all__ = [
    "Ask",
    "Asked",
    "EditedReply",
    "EventStream",
    "Fleet",
    "Health",
    "Reply",
    "Upstream",
    "UpstreamRequest",
    "build_fleet",
    "opened",
]
