"""Lists of models in the shapes of several providers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.errors import UpstreamError
from ollama_proxy.hub import Json, Model
from ollama_proxy.upstreams.ollama.codec import count

#: Names for the context of a model, in tokens.
_CONTEXT = ("context_length", "max_model_len", "context_window", "max_context_length")


def decode_models(document: Json, owner: str) -> list[Model]:
    """The models of a list, with or without an envelope; raises UpstreamError otherwise. `owner`: the upstream."""
    rows = document
    if isinstance(document, dict):
        rows = document.get("data") if document.get("data") is not None else document.get("models")
    if not isinstance(rows, list):
        raise UpstreamError(detail="the list of models is of another shape")
    models = []
    for row in rows:
        name = (row.get("id") or row.get("name") or row.get("model")) if isinstance(row, dict) else None
        if name and isinstance(name, str):
            made_at, capabilities, context = count(row.get("created")), _capabilities(row), _context(row)
            embedding = count(row.get("embedding_length")) or None
            models.append(Model(name, made_at, owner, capabilities, context, embedding_length=embedding))
    return models


def _context(row: Mapping[str, Json]) -> int | None:
    meta = row.get("meta")
    found = [count(row.get(name)) for name in _CONTEXT]
    found.append(count(meta.get("n_ctx") or meta.get("n_ctx_train")) if isinstance(meta, dict) else 0)
    return next((length for length in found if length), None)


def _capabilities(row: Mapping[str, Json]) -> frozenset[str] | None:
    """The capabilities in a row; None if it does not list enough."""
    if row.get("type") in ("embedding", "embeddings"):
        return frozenset({"embedding"})
    listed = row.get("capabilities")
    if isinstance(listed, list) and ("completion" in listed or "embedding" in listed):  # as this gateway lists them
        return frozenset(name for name in listed if isinstance(name, str))
    parameters, architecture = row.get("supported_parameters"), row.get("architecture")
    if not isinstance(parameters, list):
        return None
    inputs = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    inputs = inputs if isinstance(inputs, list) else []
    told = {
        "completion": True,
        "tools": "tools" in parameters,
        "thinking": "reasoning" in parameters or "include_reasoning" in parameters,
        "vision": "image" in inputs,
        "audio": "audio" in inputs,
    }
    return frozenset(name for name, can in told.items() if can)
