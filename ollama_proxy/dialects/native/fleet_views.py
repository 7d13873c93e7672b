"""What Ollama tells of itself and its models, told of all upstreams: where one Ollama server is not all there is."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson
from flask import Response

from ollama_proxy.dialects.native.model_documents import render_ps, render_show, render_tags, tagged
from ollama_proxy.dialects.native.render import SINGLE
from ollama_proxy.errors import GatewayError
from ollama_proxy.gateway import Exchange, Gateway, ResolvedModel, whole
from ollama_proxy.hub import Model
from ollama_proxy.upstreams import SHOWN_FOR_S
from ollama_proxy.version import version_document

_NUMBERS = re.compile(r"\d+")


def _ps(gateway: Gateway, exchange: Exchange) -> bytes:
    exchange.partial = tuple(node.name for node in gateway.fleet.refresh(SHOWN_FOR_S))
    boxes = gateway.fleet.ollama_nodes()
    # Rows of Ollama's list, each with the server that it is from.
    rows = [(box.name, dict(row)) for box in boxes if box.models.listing for row in box.models.listing.loaded]
    shown = gateway.lists(exchange).filter(
        rows,
        lambda placed: str(placed[1].get("name")),
        lambda placed, name: (placed[0], placed[1] | {"name": tagged(name), "model": tagged(name)}),
    )
    here = [(box, [row]) for box, row in shown if _is_there(gateway, exchange, row["name"], box)]
    return render_ps(here, named=len(boxes) > 1)


def _is_there(gateway: Gateway, exchange: Exchange, name: str, box: str) -> bool:
    """Whether a name may lead to a server: one that the team gave may mean a model on another one alone."""
    with contextlib.suppress(GatewayError):
        return any(node.name == box for node, _ in gateway.snapshot.resolve_model(exchange, name).route.nodes)
    return False


def _version(gateway: Gateway, exchange: Exchange) -> bytes:
    """The oldest of the Ollama servers: what it can do all can do."""
    versions = [box.state.version for box in gateway.fleet.ollama_nodes() if box.state and box.state.version]
    oldest = min(versions, key=lambda version: [*map(int, _NUMBERS.findall(version))], default=None)
    return orjson.dumps(version_document(oldest))


_DOCUMENTS: Mapping[str, Callable[[Gateway, Exchange], bytes]] = {
    "tags": lambda gateway, exchange: render_tags(gateway.lists(exchange).all()),
    "ps": _ps,
    "version": _version,
    # No request goes to Ollama's cloud unless the operator names the model.
    "status": lambda gateway, exchange: orjson.dumps({"cloud": {"disabled": True, "source": "config"}}),
}


def respond_for_fleet(gateway: Gateway, exchange: Exchange, name: str) -> Response:
    """The answer to GET /api/{name} of the whole fleet."""
    return whole(_DOCUMENTS[name](gateway, exchange), content_type=SINGLE)


def show_provided_model(exchange: Exchange, resolved: ResolvedModel) -> Response:
    """The answer to /api/show for a model of a provider: all that is known of it, under the client's name."""
    node, upstream_model = resolved.route.nodes[0]
    known = node.models.listing.models.get(resolved.route.bare) if node.models.listing else None
    model = known[1] if known else Model(upstream_model, 0, node.name)
    if model.capabilities is None:
        with contextlib.suppress(GatewayError):
            model = replace(model, capabilities=node.upstream.capabilities(upstream_model, exchange.call))
    return whole(render_show(replace(model, name=exchange.model)), content_type=SINGLE)
