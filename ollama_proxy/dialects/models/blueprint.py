"""GET /v1/models, which two vendors' clients share: each gets its own shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flask import Blueprint, Response

from ollama_proxy.arrival import current_exchange
from ollama_proxy.dialects.anthropic import render as anthropic
from ollama_proxy.dialects.openai import render as openai
from ollama_proxy.errors import ModelNotFound
from ollama_proxy.gateway import Gateway
from ollama_proxy.hub import Model
from ollama_proxy.policy.names import canonical
from ollama_proxy.responses import whole


class Shape(NamedTuple):
    """How a dialect draws models."""

    many: Callable[[Sequence[Model]], bytes]
    one: Callable[[Model, str], bytes]


SHAPES: Mapping[str, Shape] = {
    "openai": Shape(openai.render_models, openai.render_model),
    "anthropic": Shape(anthropic.render_models, anthropic.render_model),
}


def build_blueprint(gateway: Gateway) -> Blueprint:
    """The list, and one of it."""
    blueprint = Blueprint("models", __name__, url_prefix="/v1")

    @blueprint.get("/models", endpoint="list")
    def models() -> Response:
        """GET /v1/models."""
        exchange = current_exchange()
        return whole(SHAPES[exchange.dialect].many(gateway.models(exchange)))

    # Ids hold slashes, and official clients send them as %2F.
    @blueprint.get("/models/<path:name>", endpoint="one")
    def model(name: str) -> Response:
        """GET /v1/models/{id}."""
        exchange = current_exchange()
        for listed in gateway.models(exchange, hidden=True):
            if canonical(listed.name) == canonical(name):
                return whole(SHAPES[exchange.dialect].one(listed, name))
        raise ModelNotFound(f"The model '{name[:200]}' does not exist here.", param="model")

    return blueprint
