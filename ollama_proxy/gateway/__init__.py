"""One admitted call: resolve the model, prepare the request, open an upstream, deliver the answer."""

from ollama_proxy.gateway import capacity
from ollama_proxy.gateway.delivery import deliver, fail, fault
from ollama_proxy.gateway.draining import WORKER
from ollama_proxy.gateway.exchange import EXCHANGE_KEY, REMARKS, Exchange, current_exchange
from ollama_proxy.gateway.gateway import Gateway, allowed
from ollama_proxy.gateway.model_management import BOX_ARGUMENT, BOX_HEADER, ModelManagement
from ollama_proxy.gateway.passthrough.openai import CHAT, COMPLETIONS, EMBEDDINGS
from ollama_proxy.gateway.prepare import OPTIONS, SYSTEM, THINKING
from ollama_proxy.gateway.rendering import ClientDialect, ErrorFace
from ollama_proxy.gateway.resolve import ResolvedModel
from ollama_proxy.gateway.responses import count_whole, streamed, whole
from ollama_proxy.gateway.server_broadcast import Broadcast, Line, Result, as_document, failure, without_strangers

__all__ = [
    "BOX_ARGUMENT",
    "BOX_HEADER",
    "Broadcast",
    "CHAT",
    "ClientDialect",
    "COMPLETIONS",
    "EMBEDDINGS",
    "EXCHANGE_KEY",
    "ErrorFace",
    "Exchange",
    "Gateway",
    "Line",
    "ModelManagement",
    "OPTIONS",
    "REMARKS",
    "ResolvedModel",
    "Result",
    "SYSTEM",
    "THINKING",
    "WORKER",
    "allowed",
    "as_document",
    "capacity",
    "count_whole",
    "current_exchange",
    "deliver",
    "fail",
    "failure",
    "fault",
    "streamed",
    "whole",
    "without_strangers",
]
