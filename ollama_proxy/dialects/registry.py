"""The dialects of this gateway, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollama_proxy.dialects import embeddings, model_list
from ollama_proxy.dialects.anthropic.blueprint import ANTHROPIC
from ollama_proxy.dialects.dialect import Dialect, Routes
from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.dialects.openai.blueprint import OPENAI
from ollama_proxy.dialects.responses import blueprint as responses
from ollama_proxy.dialects.transcriptions import blueprint as transcriptions

#: A request belongs to the first dialect that recognises it; the last one recognises every request.
DIALECTS: tuple[Dialect, ...] = (
    ANTHROPIC.with_routes(model_list.ROUTES),
    OPENAI.with_routes(
        responses.ROUTES, embeddings.ROUTES, transcriptions.ROUTES, model_list.ROUTES
    ),
    NATIVE,
)


def find_dialect(environ: Mapping[str, Any], dialects: Sequence[Dialect] = DIALECTS) -> Dialect:
    """Return the dialect of a request; its client expects the errors of that API, also for
    paths that don't exist."""
    for dialect in dialects:  # runs for every request; a generator would take twice as long
        if dialect.recognises(environ):
            return dialect
    raise LookupError("the last dialect must recognise every request")


def all_routes(dialects: Sequence[Dialect]) -> list[Routes]:
    """Return the routes of all dialects without duplicates: dialects may share routes."""
    return list(dict.fromkeys(routes for dialect in dialects for routes in dialect.routes))
