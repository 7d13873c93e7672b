"""OpenAI's API as one of the dialects."""

from __future__ import annotations

import re

from ollama_proxy.dialects.dialect import Dialect, ModelRenderer
from ollama_proxy.dialects.openai.blueprint import ROUTES
from ollama_proxy.dialects.openai.errors import OpenAIErrors
from ollama_proxy.dialects.openai.render import render_model, render_models

#: Also with a slightly wrong base URL, which has one `/v1` too many, or none.
_PATHS = re.compile(r"/v1(/|$)|/(chat/completions|completions|embeddings|responses|models|audio/transcriptions)$")


OPENAI = Dialect(
    "openai",
    lambda environ: bool(_PATHS.match(environ["PATH_INFO"])),
    OpenAIErrors(),
    (ROUTES,),
    cors_paths=("/v1/",),
    models=ModelRenderer(render_models, render_model),
)
