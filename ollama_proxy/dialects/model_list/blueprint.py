"""GET /v1/models, which two vendors' clients share: each gets its own shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flask import Blueprint, Response

from ollama_proxy.gateway import Gateway, current_exchange, whole
from ollama_proxy.hub import Model


class Shape(NamedTuple):
    """How a dialect draws models."""

    many: Callable[[Sequence[Model]], bytes]
    one: Callable[[Model], bytes]


def build_blueprint(gateway: Gateway, shapes: Mapping[str, Shape]) -> Blueprint:
    """The list, and one of it; `shapes` by the name of the dialect."""
    blueprint = Blueprint("models", __name__, url_prefix="/v1")

    @blueprint.get("/models", endpoint="list")
    def models() -> Response:
        """GET /v1/models."""
        exchange = current_exchange()
        return whole(shapes[exchange.dialect].many(gateway.lists(exchange).all()))

    # Ids hold slashes, and official clients send them as %2F.
    @blueprint.get("/models/<path:name>", endpoint="one")
    def model(name: str) -> Response:
        """GET /v1/models/{id}."""
        exchange = current_exchange()
        return whole(shapes[exchange.dialect].one(gateway.lists(exchange).find(name)))

    return blueprint
