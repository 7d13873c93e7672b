"""Vectors in OpenAI's two encodings."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from ollama_proxy.dialects.embeddings.render import render_embeddings
from ollama_proxy.hub import EmbedAnswer

VECTORS = [[0.1, -2.5, 3.0], [], [1e-40, 65504.0]]


def rendered(encoding: str) -> list[dict[str, object]]:
    document = json.loads(render_embeddings(EmbedAnswer(VECTORS, 4), "m", encoding))
    data: list[dict[str, object]] = document["data"]
    return data


def test_float_is_the_vector_itself() -> None:
    assert [one["embedding"] for one in rendered("float")] == VECTORS


def test_base64_is_little_endian_float32() -> None:
    packed = [base64.b64decode(str(one["embedding"]), validate=True) for one in rendered("base64")]
    assert packed == [struct.pack(f"<{len(vector)}f", *vector) for vector in VECTORS]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_numbered_in_their_order(encoding: str) -> None:
    assert [(one["object"], one["index"]) for one in rendered(encoding)] == [("embedding", n) for n in range(3)]
