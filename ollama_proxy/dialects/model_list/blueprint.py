"""GET /v1/models, an address that several dialects share: each client gets the shape of its own."""

from __future__ import annotations

from flask import Blueprint, Response

from ollama_proxy.dialects.dialect import ModelRenderer, Routes, current_dialect
from ollama_proxy.errors import NotFound
from ollama_proxy.gateway import Gateway, current_exchange, whole
from ollama_proxy.policy import READ


def build_blueprint(gateway: Gateway) -> Blueprint:
    """The list, and one of it."""
    blueprint = Blueprint("models", __name__, url_prefix="/v1")

    @blueprint.get("/models", endpoint="list")
    def models() -> Response:
        """GET /v1/models."""
        renderer = _renderer()
        return whole(renderer.render_models(gateway.lists(current_exchange()).all()))

    # Ids hold slashes, and official clients send them as %2F.
    @blueprint.get("/models/<path:name>", endpoint="one")
    def model(name: str) -> Response:
        """GET /v1/models/{id}."""
        renderer = _renderer()
        return whole(renderer.render_model(gateway.lists(current_exchange()).find(name)))

    return blueprint


def _renderer() -> ModelRenderer:
    """How the client's dialect shows models; raises NotFound if it has none at this address."""
    renderer = current_dialect().models
    if renderer is None:
        raise NotFound
    return renderer


ROUTES = Routes(build_blueprint, scopes={"models.list": READ, "models.one": READ})
