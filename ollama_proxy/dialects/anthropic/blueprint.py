"""The routes of Anthropic's messages, below `/v1` and, for clients of older gateways, below `/anthropic/v1`."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response

from ollama_proxy.dialects.anthropic import transcript
from ollama_proxy.dialects.anthropic.load import load_chat, load_count, shows_thinking
from ollama_proxy.dialects.anthropic.render import MessageRenderer
from ollama_proxy.dialects.anthropic.token_estimate import estimate_tokens
from ollama_proxy.dialects.body import load_body, note_request
from ollama_proxy.dialects.dialect import Routes
from ollama_proxy.gateway import Gateway, current_exchange, whole
from ollama_proxy.policy import GENERATE


def build_blueprint(gateway: Gateway) -> Blueprint:
    """POST messages and messages/count_tokens."""
    blueprint = Blueprint("anthropic", __name__)

    @blueprint.post("/anthropic/v1/messages", endpoint="messages")
    @blueprint.post("/v1/messages", endpoint="messages")
    def messages() -> Response:
        """POST /v1/messages."""
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        asked = load_chat(data)
        note_request(exchange, asked, asked.passthrough_fields)
        # Only a stream has to say it before the model does.
        read = estimate_tokens(asked) if asked.stream else 0
        renderer = MessageRenderer(asked.model, input_tokens=read, show_thinking=shows_thinking(data))
        return gateway.complete(exchange, asked, renderer)

    @blueprint.post("/anthropic/v1/messages/count_tokens", endpoint="count_tokens")
    @blueprint.post("/v1/messages/count_tokens", endpoint="count_tokens")
    def count_tokens() -> Response:
        """POST /v1/messages/count_tokens: an estimate; no model is run for it."""
        exchange = current_exchange()
        asked = load_count(load_body(exchange, gateway))
        note_request(exchange, asked, asked.passthrough_fields)
        gateway.snapshot.resolve_model(exchange, asked.model)
        return whole(orjson.dumps({"input_tokens": estimate_tokens(asked)}))

    return blueprint


ROUTES = Routes(
    build_blueprint,
    scopes={"anthropic.messages": GENERATE, "anthropic.count_tokens": GENERATE},
    readers={"anthropic.messages": transcript.read},
)
