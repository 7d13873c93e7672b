"""Ollama's chats, completions and embeddings on upstreams that don't speak its API."""

from __future__ import annotations

import time

from flask import Response

from ollama_proxy.dialects.body import note_request
from ollama_proxy.dialects.native.load import (
    ignored,
    load_chat,
    load_embed,
    load_embeddings,
    load_generate,
    load_order,
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


def answer_translated(gateway: Gateway, exchange: Exchange, route: str) -> Response:
    """The answer to a request whose model is on such an upstream; `route`: chat, generate, embed or embeddings. An
    order to load or unload a model is answered here: nobody there has to hold it ready."""
    order = load_order(route, exchange.data)
    if order:
        exchange.stream = False
        return whole(render_load(route, exchange.model, order), content_type=SINGLE)
    if route in ("embed", "embeddings"):
        return _embed(gateway, exchange, is_older=route == "embeddings")
    asked = load_chat(exchange.data) if route == "chat" else load_generate(exchange.data)
    note_request(exchange, asked, ignored(exchange.data))
    renderer = (ChatRenderer if route == "chat" else GenerateRenderer)(asked.model, exchange.call.started)
    response = gateway.complete(exchange, asked, renderer)
    if not response.is_streamed:
        response.content_type = SINGLE
    return response


def _embed(gateway: Gateway, exchange: Exchange, *, is_older: bool) -> Response:
    asked = load_embeddings(exchange.data) if is_older else load_embed(exchange.data)
    note_request(exchange, asked, ignored(exchange.data))
    exchange.stream = False
    answer = gateway.embed(exchange, asked)
    if is_older:
        return whole(render_embeddings(answer), content_type=SINGLE)
    took_s = time.monotonic() - exchange.call.started
    return whole(render_embed(answer, asked.model, took_s, asked.dimensions), content_type=SINGLE)
