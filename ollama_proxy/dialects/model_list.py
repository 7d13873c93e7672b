"""GET /v1/models, a path that several dialects share: each client gets the format of its API."""

from __future__ import annotations

from typing import cast

import orjson
from flask import Blueprint, Response

from ollama_proxy.dialects.dialect import Dialect, ModelRenderer, Routes
from ollama_proxy.errors import NotFound
from ollama_proxy.gateway import Gateway, current_exchange, whole
from ollama_proxy.policy import READ


def build_blueprint(gateway: Gateway) -> Blueprint:
    """The list of models, and one model."""
    blueprint = Blueprint("models", __name__, url_prefix="/v1")

    @blueprint.get("/models", endpoint="list")
    def models() -> Response:
        """GET /v1/models."""
        renderer = _renderer()
        return whole(orjson.dumps(renderer.render_models(gateway.lists(current_exchange()).all())))

    # Ids hold slashes, and official clients send them as %2F.
    @blueprint.get("/models/<path:name>", endpoint="one")
    def model(name: str) -> Response:
        """GET /v1/models/{id}."""
        renderer = _renderer()
        return whole(
            orjson.dumps(renderer.render_model(gateway.lists(current_exchange()).find(name)))
        )

    return blueprint


def _renderer() -> ModelRenderer:
    """Return the renderer of the client's dialect; raises NotFound if it has
    no models at this path."""
    renderer = cast(Dialect, current_exchange().dialect).models
    if renderer is None:
        raise NotFound
    return renderer


ROUTES = Routes(build_blueprint, scopes={"models.list": READ, "models.one": READ})
