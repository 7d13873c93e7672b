"""Anthropic's Messages API as a dialect, and its routes, under `/v1` and `/anthropic/v1`."""

from __future__ import annotations

import re

import orjson
from flask import Blueprint, Response

from ollama_proxy.dialects.anthropic.errors import ALLOWANCE_HEADERS, AnthropicErrors
from ollama_proxy.dialects.anthropic.load import estimate_tokens, load_chat, shows_thinking
from ollama_proxy.dialects.anthropic.render import (
    MessageRenderer,
    read_transcript,
    render_model,
    render_models,
)
from ollama_proxy.dialects.body import load_body, note_request
from ollama_proxy.dialects.dialect import Dialect, ModelRenderer, Routes
from ollama_proxy.gateway import Gateway, current_exchange, tier_of, whole
from ollama_proxy.policy import GENERATE

#: Also with a slightly wrong base URL, which has one `/v1` too many, or none.
_PATHS = re.compile(r"(/anthropic|(/v1)*/messages)(/|$)")

#: Paths that OpenAI's API has as well: the version header identifies Anthropic's clients.
_SHARED_PATHS = re.compile(r"/v1/(models|files|skills)(/|$)")


def build_blueprint(gateway: Gateway) -> Blueprint:
    """POST messages and messages/count_tokens."""
    blueprint = Blueprint("anthropic", __name__)

    # Clients of older gateways use the longer paths.
    @blueprint.post("/anthropic/v1/messages", endpoint="messages")
    @blueprint.post("/v1/messages", endpoint="messages")
    def messages() -> Response:
        """POST /v1/messages."""
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        asked = load_chat(data)
        note_request(exchange, asked, asked.passthrough_fields)
        # A stream reports them before the model does.
        input_tokens = estimate_tokens(asked) if asked.stream else 0
        renderer = MessageRenderer(
            asked.model,
            input_tokens=input_tokens,
            show_thinking=shows_thinking(data),
            names_tier=bool(tier_of(exchange)),
        )
        return gateway.complete(exchange, asked, renderer)

    @blueprint.post("/anthropic/v1/messages/count_tokens", endpoint="count_tokens")
    @blueprint.post("/v1/messages/count_tokens", endpoint="count_tokens")
    def count_tokens() -> Response:
        """POST /v1/messages/count_tokens: an estimate, without running the model."""
        exchange = current_exchange()
        asked = load_chat(load_body(exchange, gateway), is_limited=False)
        note_request(exchange, asked, asked.passthrough_fields)
        gateway.snapshot.resolve_model(exchange, asked.model)
        return whole(orjson.dumps({"input_tokens": estimate_tokens(asked)}))

    return blueprint


ROUTES = Routes(
    build_blueprint,
    scopes={"anthropic.messages": GENERATE, "anthropic.count_tokens": GENERATE},
    readers={"anthropic.messages": read_transcript},
)


ANTHROPIC = Dialect(
    "anthropic",
    lambda environ: bool(
        _PATHS.match(environ["PATH_INFO"])
        or ("HTTP_ANTHROPIC_VERSION" in environ and _SHARED_PATHS.match(environ["PATH_INFO"]))
    ),
    AnthropicErrors(),
    (ROUTES,),
    cors_paths=("/v1/", "/anthropic/"),
    exposed_headers=("request-id", "anthropic-version", *ALLOWANCE_HEADERS),
    models=ModelRenderer(render_models, render_model),
)
