"""Anthropic's API as one of the dialects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ollama_proxy.dialects.anthropic.blueprint import ROUTES
from ollama_proxy.dialects.anthropic.errors import AnthropicErrors
from ollama_proxy.dialects.anthropic.render import render_model, render_models
from ollama_proxy.dialects.dialect import Dialect, ModelRenderer

#: Also with a slightly wrong base URL, which has one `/v1` too many.
_PATHS = re.compile(r"(/anthropic|(/v1)+/messages)(/|$)")

#: Addresses that OpenAI's API has as well: the version header marks Anthropic's clients.
_SHARED_PATHS = re.compile(r"/v1/(models|files|skills)(/|$)")


def _recognises(environ: Mapping[str, Any]) -> bool:
    path = environ["PATH_INFO"]
    is_shared = "HTTP_ANTHROPIC_VERSION" in environ and _SHARED_PATHS.match(path)
    return bool(_PATHS.match(path) or is_shared)


ANTHROPIC = Dialect(
    "anthropic",
    _recognises,
    AnthropicErrors(),
    (ROUTES,),
    cors_paths=("/v1/", "/anthropic/"),
    exposed_headers=("request-id", "anthropic-version"),
    models=ModelRenderer(render_models, render_model),
)
