"""The servers that run models, each behind the same few methods."""

from ollama_proxy.upstreams.base import EventStream, Reply, Upstream, UpstreamRequest
from ollama_proxy.upstreams.fleet import Fleet, build_fleet
from ollama_proxy.upstreams.health import Health

__all__ = ["EventStream", "Fleet", "Health", "Reply", "Upstream", "UpstreamRequest", "build_fleet"]
