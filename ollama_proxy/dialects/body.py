"""The body of a request that will be translated: what the gateway must know of it before a dialect reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flask import request

from ollama_proxy.dialects.intake import check_keys, parse_object, read_body
from ollama_proxy.gateway.exchange import Exchange
from ollama_proxy.gateway.gateway import Gateway
from ollama_proxy.hub import Json, ModelRequest
from ollama_proxy.policy.access import check_lease

#: What a request is decided on; another spelling of these is refused.
DECISIVE = ("model", "stream", "messages", "prompt", "options", "keep_alive", "n", "tools", "input", "system")

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def load_body(exchange: Exchange, gateway: Gateway) -> dict[str, Json]:
    """The JSON object that the client sent, checked for keys that could be read two ways; takes the default model
    where it names none."""
    exchange.body = read_body(request.environ, gateway.settings.server, exchange.call)
    data = exchange.data = parse_object(exchange.body)
    check_keys(data, exchange.body, DECISIVE)
    check_lease(exchange, data.get("keep_alive"))
    if not data.get("model") and gateway.settings.default_model:
        data = data | {"model": gateway.settings.default_model}
    return data


def note_request(exchange: Exchange, asked: ModelRequest, ignored: Iterable[str]) -> None:
    """Writes down what the request is about, and which of its fields can have no effect."""
    exchange.model, exchange.user = asked.model, asked.user
    # They go into a header: only what can stand there.
    exchange.ignored = tuple(_UNSAFE.sub("?", name)[:64] for name in ignored)
