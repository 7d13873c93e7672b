"""OpenAI's embeddings: the fields of POST /v1/embeddings, how they are loaded, and the
vectors in two encodings."""

from __future__ import annotations

import base64
import sys
from array import array

import orjson
from flask import Blueprint, Response

from ollama_proxy.dialects import content_parts
from ollama_proxy.dialects.body import load_body, note_request
from ollama_proxy.dialects.dialect import Routes
from ollama_proxy.dialects.schema_fields import (
    CARRIED,
    Extensions,
    anything,
    check_fields,
    flag,
    is_texts,
    load_model_name,
    passthrough_fields,
    raise_invalid,
    text,
    whole_number,
)
from ollama_proxy.errors import BadRequest
from ollama_proxy.gateway import EMBEDDINGS, Gateway, current_exchange, whole
from ollama_proxy.hub import EmbedAnswer, EmbedRequest, Json
from ollama_proxy.policy import GENERATE


class EmbeddingsSchema(Extensions):
    """POST /v1/embeddings."""

    model = text()
    input = anything()
    encoding_format = text()
    dimensions = whole_number()
    user = text()
    # Embeddings have no thinking, and no text that options could shape.
    think = anything(CARRIED)
    exclude_reasoning = flag(CARRIED)
    num_predict = anything(CARRIED)
    num_keep = anything(CARRIED)
    draft_num_predict = anything(CARRIED)
    typical_p = anything(CARRIED)
    repeat_last_n = anything(CARRIED)
    repeat_penalty = anything(CARRIED)
    seed = anything(CARRIED)
    stop = anything(CARRIED)
    mirostat = anything(CARRIED)
    mirostat_tau = anything(CARRIED)
    mirostat_eta = anything(CARRIED)


SCHEMA = EmbeddingsSchema()

#: Fields without effect here, of which most are options elsewhere.
_UNUSED = frozenset(
    name for name, field in SCHEMA.fields.items() if getattr(field, "handling", None) == CARRIED
)


def load_embeddings(data: dict[str, Json]) -> EmbedRequest:
    """Load the body of POST /v1/embeddings; raises BadRequest that names the field."""
    check_fields(SCHEMA, data)
    model = load_model_name(data)
    # An empty string is embedded as well; as `input` itself, Ollama would only
    # load the model for it.
    texts = [data["input"]] if isinstance(data.get("input"), str) else data.get("input")
    if not isinstance(texts, list) or not texts:
        raise_invalid("input", "invalid input: must be a string or an array of strings")
    if not is_texts(texts):
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
        options=content_parts.load_options(
            {name: value for name, value in data.items() if name not in _UNUSED}
        ),
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


def render_embeddings(answer: EmbedAnswer, model: str, encoding: str) -> bytes:
    """Render the answer of POST /v1/embeddings."""
    data: list[Json] = []
    for index, vector in enumerate(answer.embeddings):
        embedding: Json = vector
        if encoding == "base64":
            packed = array("f", vector)
            if sys.byteorder == "big":
                packed.byteswap()  # the API defines little-endian float32
            embedding = base64.b64encode(packed.tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    usage = {"prompt_tokens": answer.prompt_eval_count, "total_tokens": answer.prompt_eval_count}
    return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})


def build_blueprint(gateway: Gateway) -> Blueprint:
    """The one route of embeddings."""
    blueprint = Blueprint("embeddings", __name__, url_prefix="/v1")

    @blueprint.post("/embeddings", endpoint="create")
    def create() -> Response:
        """POST /v1/embeddings."""
        exchange = current_exchange()
        data = load_body(exchange, gateway)
        if (
            passed := gateway.try_passthrough(exchange, data, EMBEDDINGS, SCHEMA.fields.keys())
        ) is not None:
            return passed
        asked, encoding = load_embeddings(data), load_encoding(data)
        note_request(exchange, asked, asked.passthrough_fields)
        return whole(render_embeddings(gateway.embed(exchange, asked), asked.model, encoding))

    return blueprint


ROUTES = Routes(
    build_blueprint, scopes={"embeddings.create": GENERATE}, readers={"embeddings.create": None}
)
