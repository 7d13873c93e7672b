"""The dialects of this gateway, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollama_proxy.dialects.anthropic.dialect import ANTHROPIC
from ollama_proxy.dialects.dialect import Dialect, Routes
from ollama_proxy.dialects.embeddings import blueprint as embeddings
from ollama_proxy.dialects.model_list import blueprint as model_list
from ollama_proxy.dialects.native.dialect import NATIVE
from ollama_proxy.dialects.openai.dialect import OPENAI
from ollama_proxy.dialects.responses import blueprint as responses

#: A request belongs to the first dialect that recognises it; the last one recognises every request.
DIALECTS: tuple[Dialect, ...] = (
    ANTHROPIC.with_routes(model_list.ROUTES),
    OPENAI.with_routes(responses.ROUTES, embeddings.ROUTES, model_list.ROUTES),
    NATIVE,
)


def find_dialect(environ: Mapping[str, Any], dialects: Sequence[Dialect] = DIALECTS) -> Dialect:
    """The dialect of a request, whose error shapes its client expects, also on paths that don't exist."""
    return next(dialect for dialect in dialects if dialect.recognises(environ))


def all_routes(dialects: Sequence[Dialect]) -> list[Routes]:
    """The routes of all dialects, each once, also if several dialects share them."""
    return list(dict.fromkeys(routes for dialect in dialects for routes in dialect.routes))
