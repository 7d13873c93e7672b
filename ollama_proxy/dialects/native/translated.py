"""Ollama's chats, completions and embeddings on upstreams with another API."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

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
from ollama_proxy.dialects.native.render import (
    SINGLE,
    ChatRenderer,
    GenerateRenderer,
    render_embed,
    render_embeddings,
    render_load,
)
from ollama_proxy.gateway import Exchange, Gateway, whole
from ollama_proxy.hub import ChatRequest, EmbedRequest, GenerateRequest, Json

_LOADERS: Mapping[str, Callable[[Mapping[str, Json]], ChatRequest | GenerateRequest | EmbedRequest]] = {
    "chat": load_chat,
    "generate": load_generate,
    "embed": load_embed,
    "embeddings": load_embeddings,
}


def answer_translated(gateway: Gateway, exchange: Exchange, route: str) -> Response:
    """Answer a request for a model on such an upstream; `route`: chat, generate, embed or embeddings. A request that
    only loads or unloads the model is answered here: such an upstream loads its models itself."""
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
        took_s = time.monotonic() - exchange.call.started
        return whole(render_embed(answer, asked.model, took_s, asked.dimensions), content_type=SINGLE)
    renderer = (ChatRenderer if route == "chat" else GenerateRenderer)(asked.model, exchange.call.started)
    response = gateway.complete(exchange, asked, renderer)
    if not response.is_streamed:
        response.content_type = SINGLE
    return response
