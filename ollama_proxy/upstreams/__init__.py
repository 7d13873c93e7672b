"""The servers that run models, each behind the same few methods."""

from ollama_proxy.upstreams.attempts import Attempts, RefusedReply, forwarded, open_there
from ollama_proxy.upstreams.base import EventStream, Reply, Upstream, UpstreamRequest
from ollama_proxy.upstreams.building import build_fleet, hidden_upstreams, say_hidden
from ollama_proxy.upstreams.edited import EditedReply
from ollama_proxy.upstreams.fleet import LIMITS, SHOWN_FOR_S, Fleet, Route
from ollama_proxy.upstreams.health import Health
from ollama_proxy.upstreams.node import Node
from ollama_proxy.upstreams.shaped import Ask, Asked, opened

__all__ = [
    "LIMITS",
    "SHOWN_FOR_S",
    "Ask",
    "Asked",
    "Attempts",
    "EditedReply",
    "EventStream",
    "Fleet",
    "Health",
    "Node",
    "RefusedReply",
    "Reply",
    "Route",
    "Upstream",
    "UpstreamRequest",
    "build_fleet",
    "forwarded",
    "hidden_upstreams",
    "open_there",
    "opened",
    "say_hidden",
]
