"""Render vectors in OpenAI's two encodings."""

from __future__ import annotations

import base64
import sys
from array import array

import orjson

from ollama_proxy.hub import EmbedAnswer, Json


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
