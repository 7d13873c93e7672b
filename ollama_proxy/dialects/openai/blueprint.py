"""The routes of OpenAI's chat, completions and models."""

from __future__ import annotations

import re
from collections.abc import Iterable

import orjson
from flask import Blueprint, Response, request

from ollama_proxy.arrival import current_exchange
from ollama_proxy.dialects.intake import check_keys, parse_object, read_body
from ollama_proxy.dialects.openai.load import load_chat, load_completion
from ollama_proxy.dialects.openai.render import ChatRenderer, CompletionRenderer
from ollama_proxy.errors import ModelNotFound
from ollama_proxy.exchange import Exchange
from ollama_proxy.gateway import Gateway
from ollama_proxy.hub import ChatRequest, EmbedRequest, GenerateRequest, Json, Model
from ollama_proxy.policy.access import check_lease
from ollama_proxy.policy.names import canonical
from ollama_proxy.responses import whole

DECISIVE = ("model", "stream", "messages", "prompt", "options", "keep_alive", "n", "tools", "input")


def build_blueprint(gateway: Gateway) -> Blueprint:
    """POST chat/completions and completions, GET models and models/{id}."""
    blueprint = Blueprint("openai", __name__, url_prefix="/v1")

    @blueprint.post("/chat/completions", endpoint="chat")
    def chat() -> Response:
        """POST /v1/chat/completions."""
        exchange = current_exchange()
        asked = load_chat(load_body(exchange, gateway))
        note_request(exchange, asked, [*asked.carried, *_powerless(asked)])
        renderer = ChatRenderer(asked.model, include_usage=_include_usage(exchange, gateway))
        return gateway.chat(exchange, asked, renderer)

    @blueprint.post("/completions", endpoint="completions")
    def completions() -> Response:
        """POST /v1/completions."""
        exchange = current_exchange()
        asked = load_completion(load_body(exchange, gateway))
        note_request(exchange, asked, asked.carried)
        renderer = CompletionRenderer(asked.model, include_usage=_include_usage(exchange, gateway))
        return gateway.generate(exchange, asked, renderer)

    @blueprint.get("/models", endpoint="models")
    def models() -> Response:
        """GET /v1/models."""
        listed = gateway.models(current_exchange())
        return whole(orjson.dumps({"object": "list", "data": [render_model(model) for model in listed]}))

    # Ids hold slashes, and official clients send them as %2F.
    @blueprint.get("/models/<path:name>", endpoint="model")
    def model(name: str) -> Response:
        """GET /v1/models/{id}."""
        for listed in gateway.models(current_exchange()):
            if canonical(listed.name) == canonical(name):
                return whole(orjson.dumps(render_model(listed, name)))
        raise ModelNotFound(f"The model '{name[:200]}' does not exist here.", param="model")

    return blueprint


def load_body(exchange: Exchange, gateway: Gateway) -> dict[str, Json]:
    """The JSON object that the client sent, checked for keys that could be read two ways; takes the default model
    where it names none."""
    exchange.body = read_body(request.environ, gateway.settings.server.max_body, exchange.call)
    data = exchange.data = parse_object(exchange.body)
    check_keys(data, exchange.body, DECISIVE)
    check_lease(exchange, data.get("keep_alive"))
    if not data.get("model") and gateway.settings.default_model:
        data = data | {"model": gateway.settings.default_model}
    return data


def note_request(
    exchange: Exchange, asked: ChatRequest | GenerateRequest | EmbedRequest, ignored: Iterable[str]
) -> None:
    """Writes down what the request is about, and which of its fields can have no effect."""
    exchange.model, exchange.user = asked.model, asked.user
    # They go into a header: only what can stand there.
    exchange.ignored = tuple(_UNSAFE.sub("?", name)[:64] for name in ignored)


_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def _powerless(asked: ChatRequest) -> list[str]:
    """What Ollama has no switch for: being told to call a tool, or to call only one."""
    forced = ["tool_choice"] if asked.tool_choice not in (None, "auto", "none") else []
    return forced + (["parallel_tool_calls"] if asked.parallel_tool_calls is False else [])


def _include_usage(exchange: Exchange, gateway: Gateway) -> bool:
    asked = (exchange.data.get("stream_options") or {}).get("include_usage")
    return asked is True or gateway.settings.stream.always_include_usage


def render_model(model: Model, name: str | None = None) -> dict[str, Json]:
    """One model, under the name that the client asked for."""
    return {"id": name or model.name, "object": "model", "created": model.modified_at, "owned_by": model.owned_by}
