"""Vectors in OpenAI's two encodings."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence

import orjson

from ollama_proxy.hub import EmbedAnswer, Json


def render_embeddings(answer: EmbedAnswer, model: str, encoding: str) -> bytes:
    """The answer of POST /v1/embeddings."""
    data = [
        {"object": "embedding", "index": index, "embedding": _encode(vector, encoding)}
        for index, vector in enumerate(answer.embeddings)
    ]
    usage = {"prompt_tokens": answer.prompt_eval_count, "total_tokens": answer.prompt_eval_count}
    return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})


def _encode(vector: Sequence[float], encoding: str) -> Json:
    if encoding == "float":
        return vector
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()  # the contract is little-endian float32
    return base64.b64encode(packed.tobytes()).decode()
