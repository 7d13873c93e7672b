"""The servers that run models, each behind the same few methods."""

from ollama_proxy.upstreams.answer_events import (
    DRAIN_S,
    GRACE_S,
    MAX_ANSWER_BYTES,
    read_all,
    read_before,
    retry_after_s,
    too_large,
)
from ollama_proxy.upstreams.base import (
    Api,
    EventStream,
    Headers,
    Reply,
    TransportFactory,
    Upstream,
    UpstreamRequest,
)
from ollama_proxy.upstreams.cache import BoundedCache
from ollama_proxy.upstreams.call import Call, pace, yield_to_loop
from ollama_proxy.upstreams.fleet.balancer import Route
from ollama_proxy.upstreams.fleet.health import Health
from ollama_proxy.upstreams.fleet.model_index import HEALTH_CHECK_TIMEOUTS, SHOWN_FOR_S, Fleet
from ollama_proxy.upstreams.fleet.node import BUSY, QUICK_S, Node, State
from ollama_proxy.upstreams.forms import Part, read_form, write_form
from ollama_proxy.upstreams.merged_streams import Ended, MergedStreams
from ollama_proxy.upstreams.ollama.upstream import read_progress
from ollama_proxy.upstreams.ollama.versions import UPGRADE, list_faults
from ollama_proxy.upstreams.registry import build_fleet, log_hidden, register_kind
from ollama_proxy.upstreams.transport.connection import WaitTimer
from ollama_proxy.upstreams.transport.session import (
    HttpReply,
    HttpTransport,
    Redirected,
    tls_context,
)

__all__ = [
    "Api",
    "WaitTimer",
    "BUSY",
    "BoundedCache",
    "Call",
    "DRAIN_S",
    "Ended",
    "EventStream",
    "Fleet",
    "GRACE_S",
    "Headers",
    "Health",
    "HttpReply",
    "HttpTransport",
    "HEALTH_CHECK_TIMEOUTS",
    "MAX_ANSWER_BYTES",
    "MergedStreams",
    "Node",
    "Part",
    "QUICK_S",
    "Redirected",
    "Reply",
    "Route",
    "SHOWN_FOR_S",
    "State",
    "TransportFactory",
    "UPGRADE",
    "Upstream",
    "UpstreamRequest",
    "build_fleet",
    "yield_to_loop",
    "pace",
    "read_all",
    "read_before",
    "read_form",
    "read_progress",
    "register_kind",
    "retry_after_s",
    "list_faults",
    "log_hidden",
    "tls_context",
    "too_large",
    "write_form",
]
