"""One admitted call: resolve the model, prepare the request, open an
upstream, deliver the answer."""

from ollama_proxy.gateway import capacity
from ollama_proxy.gateway.accounting import price_of, sum_up
from ollama_proxy.gateway.delivery import deliver, log_internal_error, record_failure
from ollama_proxy.gateway.draining import Lifecycle
from ollama_proxy.gateway.exchange import (
    DIAGNOSTIC_HEADERS,
    EXCHANGE_KEY,
    Exchange,
    FinishObserver,
    current_exchange,
)
from ollama_proxy.gateway.gateway import Gateway, allowed
from ollama_proxy.gateway.model_management import BOX_ARGUMENT, BOX_HEADER, DIGEST, ModelManagement
from ollama_proxy.gateway.passthrough.openai import CHAT, COMPLETIONS, EMBEDDINGS
from ollama_proxy.gateway.prepare import OPTIONS, SYSTEM, THINKING
from ollama_proxy.gateway.rendering import ALLOWANCE_HEADERS, ClientDialect, ErrorRenderer
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.gateway.responses import count_whole, streamed, whole
from ollama_proxy.gateway.server_broadcast import (
    Broadcast,
    Line,
    Result,
    as_document,
    drop_not_found,
    failure,
)
from ollama_proxy.gateway.sharing import flow_of, tier_of
from ollama_proxy.gateway.trace import Trace, new_id

__all__ = [
    "ALLOWANCE_HEADERS",
    "BOX_ARGUMENT",
    "BOX_HEADER",
    "Broadcast",
    "CHAT",
    "ClientDialect",
    "COMPLETIONS",
    "DIGEST",
    "EMBEDDINGS",
    "EXCHANGE_KEY",
    "ErrorRenderer",
    "Exchange",
    "FinishObserver",
    "Gateway",
    "Line",
    "ModelManagement",
    "OPTIONS",
    "DIAGNOSTIC_HEADERS",
    "ResolvedModel",
    "Result",
    "SYSTEM",
    "THINKING",
    "Trace",
    "Lifecycle",
    "allowed",
    "as_document",
    "capacity",
    "count_whole",
    "current_exchange",
    "deliver",
    "record_failure",
    "failure",
    "flow_of",
    "price_of",
    "sum_up",
    "log_internal_error",
    "new_id",
    "streamed",
    "tier_of",
    "whole",
    "drop_not_found",
]
