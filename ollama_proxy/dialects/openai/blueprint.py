"""OpenAI's API as a dialect, and the routes of chat completions and completions."""

from __future__ import annotations

import re

from flask import Blueprint, Response

from ollama_proxy.dialects.body import load_body, note_request
from ollama_proxy.dialects.dialect import Dialect, ModelRenderer, Routes
from ollama_proxy.dialects.openai.errors import OpenAIErrors
from ollama_proxy.dialects.openai.load import load_chat, load_completion
from ollama_proxy.dialects.openai.render import (
    FUNCTIONS,
    TOOLS,
    ChatRenderer,
    CompletionRenderer,
    read_transcript,
    render_model,
    render_models,
)
from ollama_proxy.dialects.openai.schemas import ChatSchema, CompletionSchema
from ollama_proxy.dialects.openai.tools import is_legacy, list_custom_tools
from ollama_proxy.gateway import CHAT, COMPLETIONS, Exchange, Gateway, current_exchange, tier_of
from ollama_proxy.policy import GENERATE

#: The fields that the gateway knows.
CHAT_FIELDS, COMPLETION_FIELDS = (
    frozenset(ChatSchema().fields),
    frozenset(CompletionSchema().fields),
)

#: Also with a slightly wrong base URL, which has one `/v1` too many, or none. `/v1/api/` is
#: one of Ollama's clients.
_PATHS = re.compile(
    r"/v1(/(?!api/)|$)|/(chat/completions|completions|embeddings|responses|models|audio/transcriptions)$"
)


def build_blueprint(gateway: Gateway) -> Blueprint:
    """POST chat/completions and completions."""
    blueprint = Blueprint("openai", __name__, url_prefix="/v1")

    @blueprint.post("/chat/completions", endpoint="chat")
    def chat() -> Response:
        """POST /v1/chat/completions."""
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        if (passed := gateway.try_passthrough(exchange, data, CHAT, CHAT_FIELDS)) is not None:
            return passed
        asked = load_chat(data)
        note_request(
            exchange,
            asked,
            (name for name in asked.passthrough_fields if name != "response_format"),
        )
        calls_as = FUNCTIONS if is_legacy(exchange.data) else TOOLS
        include_usage = _include_usage(exchange, gateway)
        renderer = ChatRenderer(
            asked.model,
            include_usage=include_usage,
            n=asked.n,
            calls_as=calls_as,
            customs=frozenset(list_custom_tools(data)),
            service_tier=tier_of(exchange),
        )
        return gateway.complete(exchange, asked, renderer)

    @blueprint.post("/completions", endpoint="completions")
    def completions() -> Response:
        """POST /v1/completions."""
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        if (
            passed := gateway.try_passthrough(exchange, data, COMPLETIONS, COMPLETION_FIELDS)
        ) is not None:
            return passed
        asked, shape = load_completion(data)
        note_request(exchange, asked, asked.passthrough_fields)
        renderer = CompletionRenderer(
            asked.model, include_usage=_include_usage(exchange, gateway), shape=shape
        )
        return gateway.complete(exchange, asked, renderer)

    return blueprint


def _include_usage(exchange: Exchange, gateway: Gateway) -> bool:
    asked = (exchange.data.get("stream_options") or {}).get("include_usage")
    return asked is True or gateway.settings.stream.always_include_usage


ROUTES = Routes(
    build_blueprint,
    scopes={"openai.chat": GENERATE, "openai.completions": GENERATE},
    readers={"openai.chat": read_transcript, "openai.completions": read_transcript},
)


OPENAI = Dialect(
    "openai",
    lambda environ: bool(_PATHS.match(environ["PATH_INFO"])),
    OpenAIErrors(),
    (ROUTES,),
    cors_paths=("/v1/",),
    models=ModelRenderer(render_models, render_model),
)
