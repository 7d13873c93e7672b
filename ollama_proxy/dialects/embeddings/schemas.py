"""The fields of POST /v1/embeddings, and how they are loaded as a hub request."""

from __future__ import annotations

from ollama_proxy.dialects import content_parts
from ollama_proxy.dialects.schema_fields import (
    CARRIED,
    Extensions,
    anything,
    check_fields,
    flag,
    passthrough_fields,
    raise_invalid,
    text,
    whole_number,
)
from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import EmbedRequest, Json


class EmbeddingsSchema(Extensions):
    """POST /v1/embeddings."""

    model = text()
    input = anything()
    encoding_format = text()
    dimensions = whole_number()
    user = text()
    # Embeddings have no thinking.
    think = anything(CARRIED)
    exclude_reasoning = flag(CARRIED)


SCHEMA = EmbeddingsSchema()


def load_embeddings(data: dict[str, Json]) -> EmbedRequest:
    """Load the body of POST /v1/embeddings; raises BadRequest that names the field."""
    check_fields(SCHEMA, data)
    model = str(data.get("model") or "") or raise_invalid("model", "is required")
    # An empty string is embedded as well; as `input` itself, Ollama would only load the model for it.
    texts = [data["input"]] if isinstance(data.get("input"), str) else data.get("input")
    if not isinstance(texts, list) or not texts:
        raise_invalid("input", "invalid input: must be a string or an array of strings")
    if not all(isinstance(item, str) for item in texts):
        raise_invalid(
            "input",
            "invalid input type: token IDs are not supported; send text (LangChain: check_embedding_ctx_length=False)",
        )
    dimensions = data.get("dimensions")
    if dimensions is not None and dimensions < 1:
        raise_invalid("dimensions", "must be at least 1")
    return EmbedRequest(
        model=model,
        input=texts,
        dimensions=None if dimensions is None else int(dimensions),
        options=content_parts.load_options(data),
        keep_alive=data.get("keep_alive"),
        truncate=data.get("truncate"),
        timeout_ms=content_parts.load_timeout_ms(data),
        user=data.get("user"),
        passthrough_fields=passthrough_fields(SCHEMA, data),
    )


def load_encoding(data: dict[str, Json]) -> str:
    """Return the encoding, `float` or `base64`; raises BadRequest."""
    encoding = str(data.get("encoding_format") or "float").lower()
    if encoding not in ("float", "base64"):
        sent = str(data["encoding_format"])[:20]
        raise BadRequest(
            f"Invalid value for 'encoding_format' = {sent}. Supported values: ['float', 'base64'].",
            param="encoding_format",
        )
    return encoding
