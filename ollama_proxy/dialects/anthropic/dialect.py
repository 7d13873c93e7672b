"""Anthropic's API as one of the dialects."""

from __future__ import annotations

import re

from ollama_proxy.dialects.anthropic.blueprint import ROUTES
from ollama_proxy.dialects.anthropic.errors import AnthropicErrors
from ollama_proxy.dialects.anthropic.render import render_model, render_models
from ollama_proxy.dialects.dialect import Dialect, ModelRenderer

#: Also with a slightly wrong base URL, which has one `/v1` too many, or none.
_PATHS = re.compile(r"(/anthropic|(/v1)*/messages)(/|$)")

#: Paths that OpenAI's API has as well: the version header identifies Anthropic's clients.
_SHARED_PATHS = re.compile(r"/v1/(models|files|skills)(/|$)")


ANTHROPIC = Dialect(
    "anthropic",
    lambda environ: bool(
        _PATHS.match(environ["PATH_INFO"])
        or ("HTTP_ANTHROPIC_VERSION" in environ and _SHARED_PATHS.match(environ["PATH_INFO"]))
    ),
    AnthropicErrors(),
    (ROUTES,),
    cors_paths=("/v1/", "/anthropic/"),
    exposed_headers=("request-id", "anthropic-version"),
    models=ModelRenderer(render_models, render_model),
)
