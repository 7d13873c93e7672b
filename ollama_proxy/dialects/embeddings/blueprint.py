"""POST /v1/embeddings."""

from __future__ import annotations

from flask import Blueprint, Response

from ollama_proxy.dialects.body import load_body, note_request
from ollama_proxy.dialects.dialect import Routes
from ollama_proxy.dialects.embeddings.render import render_embeddings
from ollama_proxy.dialects.embeddings.schemas import SCHEMA, load_embeddings, load_encoding
from ollama_proxy.gateway import EMBEDDINGS, Gateway, current_exchange, whole
from ollama_proxy.policy import GENERATE


def build_blueprint(gateway: Gateway) -> Blueprint:
    """The one route of embeddings."""
    blueprint = Blueprint("embeddings", __name__, url_prefix="/v1")

    @blueprint.post("/embeddings", endpoint="create")
    def create() -> Response:
        """POST /v1/embeddings."""
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        if (passed := gateway.try_passthrough(exchange, data, EMBEDDINGS, SCHEMA.fields.keys())) is not None:
            return passed
        asked, encoding = load_embeddings(data), load_encoding(data)
        note_request(exchange, asked, asked.passthrough_fields)
        return whole(render_embeddings(gateway.embed(exchange, asked), asked.model, encoding))

    return blueprint


ROUTES = Routes(build_blueprint, scopes={"embeddings.create": GENERATE}, readers={"embeddings.create": None})
