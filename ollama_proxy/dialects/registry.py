"""The dialects of this gateway: one line each in these tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from flask import Blueprint

from ollama_proxy.dialects.anthropic import blueprint as anthropic
from ollama_proxy.dialects.anthropic import render as render_anthropic
from ollama_proxy.dialects.anthropic import transcript as spoken_anthropic
from ollama_proxy.dialects.anthropic.errors import AnthropicErrors
from ollama_proxy.dialects.embeddings import blueprint as embeddings
from ollama_proxy.dialects.model_list import blueprint as models
from ollama_proxy.dialects.model_list.blueprint import Shape
from ollama_proxy.dialects.native import blueprint as native
from ollama_proxy.dialects.native import transcript as spoken_native
from ollama_proxy.dialects.native.render import NativeErrors
from ollama_proxy.dialects.openai import blueprint as openai
from ollama_proxy.dialects.openai import render as render_openai
from ollama_proxy.dialects.openai import transcript as spoken_openai
from ollama_proxy.dialects.openai.errors import OpenAIErrors
from ollama_proxy.dialects.responses import blueprint as responses
from ollama_proxy.dialects.responses import transcript as spoken_responses
from ollama_proxy.gateway import ErrorFace, Gateway
from ollama_proxy.telemetry import Reader

#: How those draw models who share the address of their list.
SHAPES = {
    "openai": Shape(render_openai.render_models, render_openai.render_model),
    "anthropic": Shape(render_anthropic.render_models, render_anthropic.render_model),
}

#: What builds the routes of a dialect.
DIALECTS: tuple[Callable[[Gateway], Blueprint], ...] = (
    native.build_blueprint,
    openai.build_blueprint,
    responses.build_blueprint,
    embeddings.build_blueprint,
    anthropic.build_blueprint,
    partial(models.build_blueprint, shapes=SHAPES),
)

#: Error shapes by the name of the dialect; `dialect_of` in `server/request.py` picks the name by the request.
FACES: Mapping[str, ErrorFace] = {
    "native": NativeErrors(),
    "openai": OpenAIErrors(),
    "anthropic": AnthropicErrors(),
}

#: Endpoints that put something to a model, and how their answers are read; None: those are vectors.
READERS: Mapping[str, Reader | None] = {
    "native.chat": spoken_native.read,
    "native.generate": spoken_native.read,
    "native.embed": None,
    "native.embeddings": None,
    "openai.chat": spoken_openai.read,
    "openai.completions": spoken_openai.read,
    "embeddings.create": None,
    "responses.create": spoken_responses.read,
    "anthropic.messages": spoken_anthropic.read,
}
