"""The routes of OpenAI's Responses API."""

from __future__ import annotations

from flask import Blueprint, Response

from ollama_proxy.dialects.body import load_body, note_request
from ollama_proxy.dialects.dialect import Routes
from ollama_proxy.dialects.responses.echo import render_echo
from ollama_proxy.dialects.responses.input_items import is_compaction
from ollama_proxy.dialects.responses.load import load_response
from ollama_proxy.dialects.responses.render import (
    CompactionRenderer,
    ResponseRenderer,
    read_transcript,
)
from ollama_proxy.errors import NotFound
from ollama_proxy.gateway import Gateway, current_exchange, tier_of
from ollama_proxy.policy import GENERATE, READ

#: The paths of stored responses and conversations at OpenAI.
STORED = ("/responses/<path:name>", "/conversations", "/conversations/<path:name>")


def build_blueprint(gateway: Gateway) -> Blueprint:
    """POST responses; the paths of stored ones return 404."""
    blueprint = Blueprint("responses", __name__, url_prefix="/v1")

    @blueprint.post("/responses", endpoint="create")
    def create() -> Response:
        """POST /v1/responses."""
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        asked, shape = load_response(data)
        note_request(
            exchange,
            asked,
            (
                "text.verbosity" if name == "verbosity" else name
                for name in asked.passthrough_fields
            ),
        )
        renderer = CompactionRenderer if is_compaction(data["input"]) else ResponseRenderer
        return gateway.complete(
            exchange,
            asked,
            renderer(asked.model, render_echo(data, asked, tier_of(exchange)), shape),
        )

    def stored(name: str = "") -> Response:
        """Raises NotFound: no responses or conversations are stored."""
        raise NotFound(
            "This gateway stores no responses: keep the output of POST /v1/responses and "
            "send it back in input."
        )

    for rule in STORED:
        blueprint.add_url_rule(rule, "stored", stored, methods=["GET", "POST", "DELETE"])
    return blueprint


ROUTES = Routes(
    build_blueprint,
    scopes={"responses.create": GENERATE, "responses.stored": READ},
    readers={"responses.create": read_transcript},
)
