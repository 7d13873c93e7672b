"""The routes of Anthropic's Messages API, under `/v1` and, for clients of older gateways, under `/anthropic/v1`."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response

from ollama_proxy.dialects.anthropic import transcript
from ollama_proxy.dialects.anthropic.load import load_chat, shows_thinking
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
        # A stream reports them before the model does.
        input_tokens = estimate_tokens(asked) if asked.stream else 0
        renderer = MessageRenderer(asked.model, input_tokens=input_tokens, show_thinking=shows_thinking(data))
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
    readers={"anthropic.messages": transcript.read},
)
