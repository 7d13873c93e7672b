"""Ollama's API if there is more than one Ollama server, or another kind of upstream: lists,
versions, descriptions of models, and the chats, completions and embeddings that are translated."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson
from flask import Response

from ollama_proxy.dialects.body import note_request
from ollama_proxy.dialects.native.load import (
    find_ignored,
    find_purpose,
    load_chat,
    load_embed,
    load_embeddings,
    load_generate,
)
from ollama_proxy.dialects.native.model_documents import (
    add_tag,
    render_ps,
    render_show,
    render_tags,
)
from ollama_proxy.dialects.native.render import (
    SINGLE,
    ChatRenderer,
    GenerateRenderer,
    render_embed,
    render_embeddings,
    render_load,
)
from ollama_proxy.errors import GatewayError
from ollama_proxy.gateway import Exchange, Gateway, ResolvedModel, whole
from ollama_proxy.hub import ChatRequest, EmbedRequest, GenerateRequest, Json, Model
from ollama_proxy.upstreams import SHOWN_FOR_S
from ollama_proxy.version import version_document

_LOADERS: Mapping[
    str, Callable[[Mapping[str, Json]], ChatRequest | GenerateRequest | EmbedRequest]
] = {
    "chat": load_chat,
    "generate": load_generate,
    "embed": load_embed,
    "embeddings": load_embeddings,
}


def answer_translated(gateway: Gateway, exchange: Exchange, route: str) -> Response:
    """Answer a request for a model on such an upstream; `route`: chat, generate, embed or
    embeddings. A request that only loads or unloads the model is answered here: such an upstream
    loads its models itself."""
    purpose = find_purpose(route, exchange.data)
    if purpose:
        exchange.stream = False
        return whole(render_load(route, exchange.model, purpose), content_type=SINGLE)
    asked = _LOADERS[route](exchange.data)
    note_request(exchange, asked, find_ignored(exchange.data))
    if isinstance(asked, EmbedRequest):
        exchange.stream = False
        answer = gateway.embed(exchange, asked)
        if route == "embeddings":
            return whole(render_embeddings(answer), content_type=SINGLE)
        took_s = exchange.call.clock.monotonic() - exchange.call.started
        return whole(
            render_embed(answer, asked.model, took_s, asked.dimensions), content_type=SINGLE
        )
    renderer = (ChatRenderer if route == "chat" else GenerateRenderer)(
        asked.model, exchange.call.started, exchange.call.clock.monotonic
    )
    response = gateway.complete(exchange, asked, renderer)
    if not response.is_streamed:
        response.content_type = SINGLE
    return response


_NUMBERS = re.compile(r"\d+")


def _list_loaded(gateway: Gateway, exchange: Exchange) -> bytes:
    """Render the loaded models of all Ollama servers, without those that did not answer."""
    exchange.partial = tuple(node.name for node in gateway.fleet.refresh(SHOWN_FOR_S))
    boxes = gateway.fleet.ollama_nodes
    # The rows of Ollama's lists, each with its server.
    rows = [
        (box.name, dict(row))
        for box in boxes
        if box.models.listing
        for row in box.models.listing.loaded
    ]
    shown = gateway.lists(exchange).filter(
        rows,
        lambda placed: str(placed[1].get("name")),
        lambda placed, name: (
            placed[0],
            placed[1] | {"name": add_tag(name), "model": add_tag(name)},
        ),
    )
    here = []
    for box, row in shown:
        # An alias may mean a model that only another server has.
        with contextlib.suppress(GatewayError):
            route = gateway.snapshot.resolve_model(exchange, row["name"]).route
            if any(node.name == box for node, _ in route.nodes):
                here.append((box, [row]))
    return render_ps(here, named=len(boxes) > 1)


def respond_for_fleet(gateway: Gateway, exchange: Exchange, name: str) -> Response:
    """Return the answer of the whole fleet to GET /api/{name}; `name`: tags,
    ps, version or status."""
    match name:
        case "tags":
            document = render_tags(gateway.lists(exchange).all())
        case "ps":
            document = _list_loaded(gateway, exchange)
        case "version":
            # The oldest version: what it supports, all servers support.
            versions = [
                box.state.version
                for box in gateway.fleet.ollama_nodes
                if box.state and box.state.version
            ]
            oldest = min(
                versions, key=lambda version: [*map(int, _NUMBERS.findall(version))], default=None
            )
            document = orjson.dumps(version_document(oldest))
        case _:
            # That of the Ollama servers if all that answer have the same, else that Ollama's cloud
            # is disabled: no request goes there unless the operator names the model.
            nodes = [node for node in gateway.fleet.ollama_nodes if node.connection.is_closed]
            found = [
                status
                for node in nodes
                if (status := node.upstream.status(exchange.call)) is not None
            ]
            is_agreed = bool(found) and all(status == found[0] for status in found)
            document = orjson.dumps(
                found[0] if is_agreed else {"cloud": {"disabled": True, "source": "config"}}
            )
    return whole(document, content_type=SINGLE)


def show_provided_model(exchange: Exchange, resolved: ResolvedModel) -> Response:
    """Return the answer to /api/show for a model of a provider, under the name
    that the client used."""
    node, upstream_model = resolved.route.nodes[0]
    known = node.models.listing.models.get(resolved.route.bare) if node.models.listing else None
    model = known[1] if known else Model(upstream_model, 0, node.name)
    if model.capabilities is None:
        with contextlib.suppress(GatewayError):
            model = replace(
                model, capabilities=node.upstream.capabilities(upstream_model, exchange.call)
            )
    return whole(render_show(replace(model, name=exchange.model)), content_type=SINGLE)
